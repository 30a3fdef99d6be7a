#include <algorithm>
#include <cmath>

#include "core/every_fit.hpp"

namespace lmq {
namespace {

// Levels low + k * step from the least to the greatest value; a table where float cannot say the step (it overflows or
// vanishes).
Codebook spread(float low, float high, std::size_t count) {
  if (!(low < high) || count < 2) return Codebook::grid(low, 0, 1);
  const double exact = (double{high} - double{low}) / static_cast<double>(count - 1);
  const auto step = static_cast<float>(exact);
  const float top = low + static_cast<float>(count - 1) * step;
  if (step >= 0x1p-126f && std::isfinite(top)) return Codebook::grid(low, step, count);
  std::vector<float> levels(count);
  for (std::size_t k = 0; k < count; ++k)
    levels[k] = std::min(high, static_cast<float>(double{low} + static_cast<double>(k) * exact));
  return Codebook::table(std::move(levels));
}

class UniformQuantizer final : public Quantizer {
 public:
  explicit UniformQuantizer(std::size_t levels)
      : Quantizer({.detail = Detail::extremes,
                   .grid = true,
                   .cost = {.row_weight = 2, .solve_bin = 0, .solve_level = 0, .value_bytes = 8}}),
        levels_(levels) {}
  [[nodiscard]] Fit fit(const Group& group) const override {
    return {spread(group.minimum, group.maximum, levels_), {}};
  }
  [[nodiscard]] Codebook fit_values(std::span<const float> values, std::span<const float>, Workspace&) const override {
    const auto [low, high] = std::ranges::minmax(values);
    return spread(low, high, levels_);
  }

 private:
  std::size_t levels_;
};

}  // namespace

extern const QuantizerEntry kUniform;
const QuantizerEntry kUniform{.id = 1,  // written to files: never reused, never renumbered
                              .name = "uniform",
                              .summary = "equally spaced levels over [min, max]",
                              .source = "Gray & Neuhoff 1998, Quantization, section II",
                              .make = [](const QuantizerOptions& options) -> std::unique_ptr<Quantizer> {
                                return std::make_unique<UniformQuantizer>(options.levels);
                              },
                              .all = every_fit<kUniform>};

}  // namespace lmq
