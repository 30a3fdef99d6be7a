#pragma once
#include <cstddef>
#include <cstdint>

#include "lmq/quant/group.hpp"

namespace lmq {

/// What to do with weights that are exactly 0.
enum class ZeroRule : std::uint8_t {
  automatic = 0,  ///< as `on` where zeros stand out (pruned tensors), else as `off`
  off = 1,        ///< like any other value
  on = 2,         ///< where there are zeros, the level of their cell is exactly 0
};
/// The bin of the zeros that keep their level, or group.size(). Zeros stand out when they are at least one weight in
/// 1,024 and more than twice as many as either neighbouring value.
[[nodiscard]] std::size_t pinned_zero(const Group& group, ZeroRule rule) noexcept;

}  // namespace lmq
