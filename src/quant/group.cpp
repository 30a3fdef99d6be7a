#include "lmq/quant/group.hpp"

#include "lmq/kernels/keys.hpp"

namespace lmq {

std::uint32_t ordered_key(float value) noexcept { return float_key(value); }
float from_ordered_key(std::uint32_t key) noexcept { return key_float(key); }

bool Group::resolved() const noexcept {
  for (std::size_t j = 0; j < size(); ++j)
    if (low[j] != high[j]) return false;
  return true;
}

}  // namespace lmq
