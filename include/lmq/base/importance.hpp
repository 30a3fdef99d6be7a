#pragma once
#include <cstdint>
#include <span>
#include <string_view>

namespace lmq {

/// What is known of a tensor's importance. The numbers are part of digests.
enum class ImportanceKind : std::uint8_t {
  columns = 0,  ///< of its columns alone (mean squared inputs): compares weights of the tensor, not tensors
  rows = 1,     ///< of its rows alone (mean squared output gradients)
  outer = 2,    ///< of both: importance of a weight is the product
  weights = 3,  ///< of each weight (squared gradients)
  none = 4,     ///< nothing: every error weighs 1
};

/// "columns", "rows", "rows x columns", "weights", "none".
[[nodiscard]] constexpr std::string_view name(ImportanceKind kind) noexcept {
  constexpr std::string_view kNames[] = {"columns", "rows", "rows x columns", "weights", "none"};
  return kNames[static_cast<std::size_t>(kind)];
}

/// What is known of a tensor's importance before its numbers are read. Values are absolute, as the file has them: `mean`
/// is the tensor's weight among others where a budget is shared, but for ImportanceKind::columns, which says nothing of
/// how the loss depends on the tensor: mean squared inputs compare columns, and tensors only by their output energy.
struct ImportanceInfo {
  ImportanceKind kind = ImportanceKind::none;
  double largest = 0;            ///< no weight has more
  double mean = 0;               ///< over its weights
  std::uint64_t length = 0;      ///< weights of a row as the importance sees it; for weights 0
  std::uint64_t block_rows = 0;  ///< rows that share a block of columns (an expert's); 0: one block for all
  bool gram = false;             ///< the inputs' curvature between weights is there, for methods that see layers
  bool gram_each = false;        ///< of each expert
  std::uint64_t outer_rows = 0;  ///< rows of a block of the outputs'; 0: not there

  [[nodiscard]] bool present() const noexcept { return kind != ImportanceKind::none; }
};

/// Weight of each error. Values are finite and >= 0 (checked when they are read), and absolute: those of two tensors compare.
/// Exact sums over ranks need integers: a value h counts as max(1, round(h / quantum)) steps of `quantum`, a power of
/// two common to everything that shares a codebook.
///
/// A window may begin anywhere in a row. All kinds but weights see the tensor as rows of their own length, which need
/// not be that of the codebooks: weight i of the window lies in column (first_column + i) % length of row
/// (first_column + i) / length, counted from the window's first row. It weighs rows[row] * values[block of the
/// row][column], rounded to float.
struct Importance {
  using Kind = ImportanceKind;
  Kind kind = Kind::none;
  std::span<const float> values;  ///< weights: [count]; none: empty; else [blocks][length], all 1 where rows tell alone
  std::uint64_t first_column = 0;  ///< the column of the window's first weight
  double quantum = 1;
  std::span<const float> rows = {};  ///< a factor for each row that the window touches; empty: all 1
  std::uint64_t length = 0;          ///< weights of a row; columns in one block: may be 0, values tell it
  std::uint64_t block_rows = 0;      ///< rows that share a block of columns (an expert); 0: one block for all
  std::uint64_t first_row = 0;       ///< place of the window's first row in its block

  // Curvature between weights, for methods that see layers: the loss a weight error E makes is half of tr(F E S E^T).
  // Windows are whole rows of one block then. What is empty is known by its diagonal alone (values for S, rows for F).
  std::span<const float> gram = {};   ///< S of the block's inputs, [length][length], symmetric, undamped
  std::uint64_t gram_key = 0;         ///< stands for gram's numbers: equal keys, equal numbers; 0: says nothing
  std::span<const float> outer = {};  ///< F of the outputs, undamped, in blocks on its diagonal from the window's first
                                      ///< row on: [ceil(rows / outer_rows)][outer_rows][outer_rows], symmetric, the
                                      ///< last one of what is left, stored full size with zeros
  std::uint64_t outer_rows = 0;       ///< rows of a block of outer
  double outer_mean = 0;              ///< mean of F's diagonal over the whole layer; 0 without outer

  /// The same for every row.
  [[nodiscard]] bool one_row() const noexcept { return kind == Kind::columns && block_rows == 0; }
};

}  // namespace lmq
