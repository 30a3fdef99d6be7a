#include <cmath>

#include "level_fit.hpp"
#include "lmq/base/error.hpp"
#include "lmq/quant/quantizer.hpp"

namespace lmq {
namespace {

struct AsqOptions {
  std::uint64_t seed = 0;
  double slack = 0;
  std::size_t grid = 0;
};
constexpr auto kSeed =
    whole_option<&AsqOptions::seed>("seed", "draws of stochastic rounding are a function of (seed, tensor, element)");
constexpr auto kSlack = number_option<&AsqOptions::slack>(
    "slack", "levels may cost up to 1 + slack of the least possible; 0: the optimum", 0, 1);
constexpr auto kGrid = whole_option<&AsqOptions::grid>(
    "grid", "levels only at the ends of so many cells of equal width; 0: anywhere", 0, 65536);
constexpr auto kTotalOptions = option_table(kSeed, kSlack, kGrid);
constexpr auto kWorstOptions = option_table(kSeed, kSlack);

class AsqQuantizer final : public Quantizer {
 public:
  AsqQuantizer(std::size_t levels, const AsqOptions& options, LevelObjective objective, bool weighted)
      : Quantizer({.rounding = Rounding::stochastic,
                   .importance = weighted,
                   .seed = options.seed,
                   .cost = {.row_level = 50,
                            .row_each = 80,
                            .value_bytes = objective == LevelObjective::largest_variance ? 90u : 150u,
                            .level_bytes = objective == LevelObjective::largest_variance ? 0u : 4u}}) {
    choice_.levels = levels;
    choice_.objective = objective;
    choice_.slack = options.slack;
    choice_.grid = options.grid;
  }

  [[nodiscard]] Fit fit(const Group& group) const override {
    LevelFit found = fit_levels(group, choice_);
    return {Codebook::table(std::move(found.levels.levels)), ranges_of_bins(group, found.open_bins)};
  }
  [[nodiscard]] Codebook approximate_fit(const Group& group) const override {
    constexpr std::size_t kRoughGrid = 2048;
    LevelChoice rough = choice_;
    if (rough.objective == LevelObjective::total_variance && rough.grid == 0) rough.grid = kRoughGrid;
    return Codebook::table(fit_levels(group, rough).levels.levels);
  }

 private:
  LevelChoice choice_;
};

void complete(const AsqOptions& options, std::size_t, bool) {
  if (options.grid == 1) fail(Errc::usage, "grid is 1, expected 0 or at least 2 cells");
}

template <LevelObjective kObjective, bool kWeighted>
std::unique_ptr<Quantizer> make(std::size_t levels, const AsqOptions& options) {
  return std::make_unique<AsqQuantizer>(levels, options, kObjective, kWeighted);
}

}  // namespace

extern const QuantizerEntry kAsq;
const QuantizerEntry kAsq{
    .id = 15,  // written to files: never reused, never renumbered
    .name = "asq",
    .summary = "unbiased stochastic rounding, least expected squared error: the exact optimum",
    .source =
        "Zhang et al. 2017, ZipML, section 3.2; Ben Basat et al. 2024, QUIVER, section 3 (adaptive stochastic "
        "quantization)",
    .make = make_with<kTotalOptions, make<LevelObjective::total_variance, false>>,
    .options = kTotalOptions,
    .complete = change_with<kTotalOptions, complete>};

extern const QuantizerEntry kAsqIpWorst;
const QuantizerEntry kAsqIpWorst{
    .id = 16,
    .name = "asq-ip-worst",
    .summary = "unbiased, least error of an inner product with the worst input of norm 1",
    .source = "White & Singal 2026, Inner Product Aware Quantization (maximum directional variance)",
    .make = make_with<kWorstOptions, make<LevelObjective::largest_variance, false>>,
    .options = kWorstOptions};

extern const QuantizerEntry kAsqIpMean;
const QuantizerEntry kAsqIpMean{
    .id = 17,
    .name = "asq-ip-mean",
    .summary = "unbiased, least mean error of inner products; importance: second moments of the inputs",
    .source = "White & Singal 2026, Inner Product Aware Quantization (average directional variance)",
    .make = make_with<kTotalOptions, make<LevelObjective::total_variance, true>>,
    .options = kTotalOptions,
    .complete = change_with<kTotalOptions, complete>};

}  // namespace lmq
