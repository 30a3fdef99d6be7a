#include "lmq/quant/importance.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

namespace lmq {

double importance_quantum(double largest, std::uint64_t weights) noexcept {
  if (!(largest > 0) || !std::isfinite(largest)) return 1;
  // weights * (largest / quantum + 1) <= 2^61 + weights: the 1 is what rounding and the minimum of one step may add.
  const int weight_bits = weights > 1 ? static_cast<int>(std::bit_width(weights - 1)) : 0;
  const int step_bits = std::clamp(61 - weight_bits, 0, 50);
  int exponent = 0;
  std::frexp(largest, &exponent);  // largest < 2^exponent
  return std::ldexp(1.0, std::max(exponent - step_bits, -1022));
}

}  // namespace lmq
