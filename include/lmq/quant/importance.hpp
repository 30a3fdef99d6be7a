#pragma once
#include <cstdint>
#include <span>

namespace lmq {

/// Weight of each error. Values are finite and >= 0 (checked at the door). Exact sums over ranks need integers: a value h
/// counts as max(1, round(h / quantum)) steps of `quantum`, a power of two common to everything that shares a codebook.
struct Importance {
  enum class Kind : std::uint8_t { none, columns, weights };
  Kind kind = Kind::none;
  std::span<const float> values;   ///< columns: [cols] of the tensor; weights: [count] of this window; none: empty
  std::uint64_t first_column = 0;  ///< columns: the column of the window's first weight (windows may begin inside a row)
  double quantum = 1;
};

/// Quantum for `weights` weights of importance at most `largest`: fine enough for floats, coarse enough that their sum
/// stays below 2^62. 1 when largest == 0 (all equal).
[[nodiscard]] double importance_quantum(double largest, std::uint64_t weights) noexcept;

}  // namespace lmq
