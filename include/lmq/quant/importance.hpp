#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>

#include "lmq/base/importance.hpp"

namespace lmq {

/// True when the spans hold what a window of `count` weights asks of them.
[[nodiscard]] bool covers(const Importance& importance, std::uint64_t count) noexcept;

/// No weight of the window weighs more than this: max rows * max values for kind outer.
[[nodiscard]] double largest_importance(const Importance& importance) noexcept;

/// Quantum for `weights` weights of importance at most `largest`: fine enough for floats, coarse enough that their sum
/// stays below 2^62. 1 when largest == 0 (all equal).
[[nodiscard]] double importance_quantum(double largest, std::uint64_t weights) noexcept;

/// Layers of importance, a quarter of an octave each: where a code depends on value and importance, weights of a layer
/// count as equally important. Four to an octave cost .02 % of the price that is minimised.
inline constexpr std::size_t kLayers = 4 * 63;
/// Layer of an importance in steps (importance_quantum), 1 <= steps < 2^63.
[[nodiscard]] inline std::size_t layer_of(std::uint64_t steps) noexcept {
  const unsigned octave = static_cast<unsigned>(std::bit_width(steps)) - 1;
  return 4 * octave + (octave >= 2 ? steps >> (octave - 2) : steps << (2 - octave)) % 4;
}
/// The importance that stands for a layer, its middle.
[[nodiscard]] double layer_importance(std::size_t layer, double quantum) noexcept;

}  // namespace lmq
