#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lmq/base/quantized_unit.hpp"
#include "lmq/quant/importance.hpp"

namespace lmq {

/// Which of priced levels a value gets at one importance: interval i between cuts (the number of cuts <= value) has
/// level order[i].
struct PricedCuts {
  std::vector<float> cuts;
  std::vector<Code> order;  ///< [cuts + 1]
};
/// The level c of least importance * (v - c)^2 + price for every v, the smaller c of two; values that are exactly 0 get
/// the level 0 where there is one. levels ascending, prices as many and finite, importance > 0. O(levels).
void priced_cuts(std::span<const double> levels, std::span<const double> prices, double importance, PricedCuts& out);

/// Codes of weights by value and importance, which is that of the layer.
class PricedLevels {
 public:
  /// levels [K] ascending, prices [K], quantum of the importance. 252 K steps.
  PricedLevels(std::span<const float> levels, std::span<const double> prices, double quantum);
  /// codes[i] of weights[i] with importance[i]; all of one length. About 4 ns a weight.
  void assign(std::span<const float> weights, std::span<const float> importance, std::span<Code> codes) const noexcept;

 private:
  double quantum_;
  std::size_t stride_ = 1;   // of a layer: a power of two above the number of cuts
  std::vector<float> cuts_;  // [layers][stride], filled up with infinity
  std::vector<Code> order_;  // [layers][stride]
};

}  // namespace lmq
