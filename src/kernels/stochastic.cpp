#include "lmq/kernels/stochastic.hpp"

#include <algorithm>

#include "lmq/base/random.hpp"
#include "lmq/kernels/widen.hpp"

namespace lmq {

void assign_stochastic(DType type, std::span<const std::byte> weights, std::span<const float> levels, std::uint64_t key,
                       std::uint64_t first, std::span<Code> codes) noexcept {
  const std::size_t size = bits(type) / 8;
  for (std::size_t i = 0; i < codes.size(); ++i) {
    float weight = 0;
    widen(type, weights.subspan(i * size, size), {&weight, 1});
    const auto above = std::ranges::upper_bound(levels, weight);
    if (above == levels.begin() || above == levels.end()) {
      codes[i] = above == levels.begin()
                     ? Code{0}
                     : static_cast<Code>(std::ranges::lower_bound(levels, levels.back()) - levels.begin());
      continue;
    }
    const double lower = above[-1], upper = *above;
    const bool up = draw32(key, first + i) < (double{weight} - lower) / (upper - lower) * 0x1p32;
    const auto at = up ? above : std::ranges::lower_bound(levels, above[-1]);
    codes[i] = static_cast<Code>(at - levels.begin());
  }
}

}  // namespace lmq
