#pragma once
#include <algorithm>

#include "grid_solver.hpp"
#include "lmq/quant/quantizer.hpp"
#include "matrix/step_search.hpp"

namespace lmq {

/// Options that methods of the family share; a method's struct has members zero_point and effort.
inline constexpr std::string_view kZeroPointWords[] = {"auto", "on", "between", "free"};
template <class Options>
inline constexpr auto kZeroPointOption = word_option<&Options::zero_point>(
    "zero-point",
    "where 0 lies: on a level, half way between two, free (the lowest level is chosen, too); auto: on, with 2 "
    "levels between",
    kZeroPointWords);
enum class Effort : std::uint8_t { quick, normal, thorough };
inline constexpr std::string_view kEffortWords[] = {"quick", "normal", "thorough"};
template <class Options>
inline constexpr auto kEffortOption = word_option<&Options::effort>("effort", "how long a grid is sought",
                                                                    kEffortWords);

/// Nanoseconds a weight that the search for a grid's step takes: two looks at as many steps.
[[nodiscard]] constexpr double search_cost(std::size_t levels) noexcept {
  constexpr double kLook = 4.5;
  return 50 + 2 * kLook * static_cast<double>(std::max(kStepFactors, 2 * levels));
}

/// A method whose codebooks are uniform grids, found together with the codes.
class LearnedQuantizer final : public Quantizer {
 public:
  LearnedQuantizer(std::size_t levels, ZeroPoint zero, const GridSearch& search, const MethodCost& cost);
  /// Bins count as their means under their mass; bins of several values are looked at until there are 2^16 of them.
  [[nodiscard]] Fit fit(const Group& group) const override;
  /// Without training.
  [[nodiscard]] Codebook approximate_fit(const Group& group) const override;
  /// A grid for each run of unit.group weights of a row, codes by the Gram matrix where there is one.
  [[nodiscard]] UnitStats quantize_rows(const RowWindow& window, QuantizedUnit& unit) const override;
  [[nodiscard]] RowNeeds row_needs(std::uint64_t count, std::uint64_t cols) const override;
  /// What a Gram matrix adds to row_needs and to the cost.
  [[nodiscard]] LayerNeeds layer_needs(const LayerShape& shape) const override;

 private:
  [[nodiscard]] Codebook codebook_of(const Group& group, const GridSearch& search) const;
  std::size_t levels_;
  ZeroPoint zero_;
  GridSearch search_;
};

}  // namespace lmq
