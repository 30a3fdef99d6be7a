#pragma once
#include <bit>
#include <cstdint>

namespace lmq {

/// About the cube root: within 4 %, the same bits everywhere (it only places blocks and first guesses, never decides).
[[nodiscard]] inline double rough_cube_root(double x) noexcept {
  if (!(x > 0)) return 0;
  return std::bit_cast<double>(std::bit_cast<std::uint64_t>(x) / 3 + 0x2A9F7893782DA1CEull);
}

}  // namespace lmq
