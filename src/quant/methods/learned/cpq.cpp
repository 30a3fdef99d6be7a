#include <array>

#include "learned_quantizer.hpp"
#include "lmq/base/error.hpp"

namespace lmq {
namespace {
struct CpqOptions {
  ZeroPoint zero_point = ZeroPoint::automatic;
  Effort effort = Effort::normal;
  Backward backward = Backward::cpq;
  std::optional<std::size_t> steps = {};
  double noise = 1.0 / 3;
  std::optional<double> last_noise = {};
  double drop = 0;
  MaskScheme drop_by = MaskScheme::ends;
  std::size_t descent = 0;
  std::uint64_t seed = 0;
};
constexpr std::string_view kBackwardWords[] = {"cpq", "mean", "lsq", "free-logits"};
constexpr std::string_view kSchemeWords[] = {"ends", "bits"};
constexpr auto kOptions = option_table(
    kZeroPointOption<CpqOptions>, kEffortOption<CpqOptions>,
    word_option<&CpqOptions::backward>(
        "backward",
        "gradient: cpq (of the nearest class alone, as published), mean (of the mean over classes), "
        "lsq (1 inside the range), free-logits (logits of their own, annealed)",
        kBackwardWords),
    whole_option<&CpqOptions::steps>("steps", "steps of Adam (30, 100 or 400 by effort where nothing is said)", 0,
                                     100000),
    number_option<&CpqOptions::noise>("noise", "scale of the noise in grid steps", 0.01, 10),
    number_option<&CpqOptions::last_noise>(
        "last-noise", "the same at the last step, geometric between (as at the first where nothing is said)", 0.01, 10),
    number_option<&CpqOptions::drop>("drop", "DropBits: probability that a gate is closed in a step", 0, 0.9),
    word_option<&CpqOptions::drop_by>(
        "drop-by", "what a gate of DropBits closes: the outer end points pair by pair, or bit by bit", kSchemeWords),
    whole_option<&CpqOptions::descent>(
        "descent", "rounds of descent on the codes in the end (--importance with a Gram matrix)", 0, 20),
    whole_option<&CpqOptions::seed>("seed", "of random draws"));

GridSearch search_of(const CpqOptions& options) {
  constexpr std::array<std::size_t, 3> kStepsByEffort{30, 100, 400};
  GridSearch search;
  search.trains = true;
  search.training = {.backward = options.backward,
                     .steps = options.steps.value_or(kStepsByEffort[static_cast<std::size_t>(options.effort)]),
                     .noise = options.noise,
                     .last_noise = options.last_noise.value_or(options.noise),
                     .drop = options.drop,
                     .scheme = options.drop_by,
                     .seed = options.seed};
  search.descents = options.descent;
  return search;
}

void complete(const CpqOptions& options, std::size_t, bool) {
  if (options.drop > 0 && options.backward != Backward::cpq && options.backward != Backward::lsq)
    fail(Errc::usage, "drop: bits are dropped with backward \"cpq\" or \"lsq\"");
}

std::unique_ptr<Quantizer> make(std::size_t levels, const CpqOptions& options) {
  const GridSearch search = search_of(options);
  constexpr std::array kEach{115.0, 600.0, 32.0, 310.0};  // nanoseconds a weight and step, by backward
  const Training& training = search.training;
  const double each = training.drop > 0 ? 560 : kEach[static_cast<std::size_t>(training.backward)];
  const double cost = search_cost(levels) + each * static_cast<double>(training.steps);
  return std::make_unique<LearnedQuantizer>(
      levels, options.zero_point, search,
      MethodCost{.row_weight = cost, .solve_bin = cost, .solve_level = 65536 * cost / 16});
}
}  // namespace

extern const QuantizerEntry kCpq;
const QuantizerEntry kCpq{
    .id = 19,  // written to files: never reused, never renumbered
    .name = "cpq",
    .summary = "uniform grids learned with cluster-promoting quantization, with DropBits if wanted",
    .source =
        "Lee, Yun, Hwang & Yang 2021, Cluster-Promoting Quantization with Bit-Drop for Minimizing Network "
        "Quantization Loss (arXiv 2109.02100); Louizos et al. 2019, Relaxed Quantization",
    .make = make_with<kOptions, make>,
    .options = kOptions,
    .complete = change_with<kOptions, complete>};

}  // namespace lmq
