#include <algorithm>

#include "lmq/quant/quantizer.hpp"

namespace lmq {
namespace {

constexpr std::size_t kMaxBins = std::size_t{1} << 19;

/// Levels are the means of cells of about equal importance: a bin belongs to the cell its middle falls into.
class QuantileQuantizer final : public Quantizer {
 public:
  explicit QuantileQuantizer(std::size_t levels)
      : Quantizer({.cost = {.row_weight = 40, .solve_bin = 20, .solve_level = 0}}), levels_(levels) {}

  [[nodiscard]] Fit fit(const Group& group) const override {
    if (auto ranges = refine_all(group, kMaxBins); !ranges.empty()) return {Codebook::table({0.0f}), std::move(ranges)};
    double all = 0;
    for (const double mass : group.mass) all += mass;
    std::vector<float> levels;
    double before = 0, mass = 0, sum = 0;
    std::size_t cell = 0;
    for (std::size_t j = 0; j < group.size(); ++j) {
      const double middle = before + group.mass[j] / 2;
      const auto at = static_cast<std::size_t>(middle / all * static_cast<double>(levels_));
      if (at != cell && mass > 0) levels.push_back(static_cast<float>(sum / mass)), mass = sum = 0;
      cell = at;
      mass += group.mass[j], sum += group.mass[j] * group.mean[j];
      before += group.mass[j];
    }
    levels.push_back(static_cast<float>(sum / mass));
    return {Codebook::table(std::move(levels)), {}};
  }

 private:
  std::size_t levels_;
};

}  // namespace

extern const QuantizerEntry kQuantile;
const QuantizerEntry kQuantile{.id = 65535,  // never written by a program that is installed
                               .name = "quantile",
                               .summary = "means of cells of equal importance: codes of greatest entropy",
                               .source = "Messerschmitt 1971, Quantizing for maximum output entropy",
                               .make = [](const QuantizerOptions& options) -> std::unique_ptr<Quantizer> {
                                 return std::make_unique<QuantileQuantizer>(options.levels);
                               }};

}  // namespace lmq
