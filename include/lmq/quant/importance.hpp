#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

namespace lmq {

/// Weight of each error. Values are finite and >= 0 (checked at the door), and absolute: those of two tensors compare.
/// Exact sums over ranks need integers: a value h counts as max(1, round(h / quantum)) steps of `quantum`, a power of
/// two common to everything that shares a codebook.
///
/// A window may begin anywhere in a row. Kinds columns and outer see the tensor as rows of their own length, which need
/// not be that of the codebooks: weight i of the window lies in column (first_column + i) % length of row
/// (first_column + i) / length, counted from the window's first row.
struct Importance {
  enum class Kind : std::uint8_t {
    none,     ///< every error weighs 1
    columns,  ///< values[column]
    weights,  ///< values[weight of the window]
    outer,    ///< rows[row] * values[block of the row][column], rounded to float
  };
  Kind kind = Kind::none;
  std::span<const float> values;   ///< columns: [length]; weights: [count]; outer: [blocks][length]; none: empty
  std::uint64_t first_column = 0;  ///< columns, outer: the column of the window's first weight
  double quantum = 1;
  std::span<const float> rows = {};  ///< outer: a factor for each row that the window touches; empty: all 1
  std::uint64_t length = 0;          ///< outer, gram: weights of a row
  std::uint64_t block_rows = 0;      ///< outer: rows that share a block of columns (an expert); 0: one block for all
  std::uint64_t first_row = 0;       ///< outer: place of the window's first row in its block

  // Curvature between weights, for methods that see layers: the loss a weight error E makes is half of tr(F E S E^T).
  // Windows are whole rows of one block then. What is empty is known by its diagonal alone (values for S, rows for F).
  std::span<const float> gram = {};   ///< S of the block's inputs, [length][length], symmetric, undamped
  std::uint64_t gram_key = 0;         ///< stands for gram's numbers: equal keys, equal numbers; 0: says nothing
  std::span<const float> outer = {};  ///< F of the outputs, undamped, in blocks on its diagonal from the window's first
                                      ///< row on: [ceil(rows / outer_rows)][outer_rows][outer_rows], symmetric, the
                                      ///< last one of what is left, stored full size with zeros
  std::uint64_t outer_rows = 0;       ///< rows of a block of outer
  double outer_mean = 0;              ///< mean of F's diagonal over the whole layer; 0 without outer
};

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
