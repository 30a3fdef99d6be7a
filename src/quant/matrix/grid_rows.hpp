#pragma once
#include <cstddef>
#include <span>
#include <vector>

#include "lmq/base/quantized_unit.hpp"

namespace lmq {

/// Rows of weights on uniform grids: a grid for each `group` weights of a row, level of code k = offset + step *
/// (first + k).
struct GridShape {
  std::size_t rows = 0, cols = 0, group = 0, levels = 0;
  double first = 0;          ///< place of code 0 in steps
  bool free_offset = false;  ///< the offset is chosen, too; else it is 0
  [[nodiscard]] std::size_t groups() const noexcept { return group == 0 ? 0 : (cols + group - 1) / group; }
  [[nodiscard]] std::size_t weights() const noexcept { return rows * cols; }
  [[nodiscard]] std::size_t group_end(std::size_t g) const noexcept {
    return g + 1 == groups() ? cols : (g + 1) * group;
  }
};

/// What errors e of a row cost: e H e^T. H is a Gram matrix, or diagonal.
struct RowCurvature {
  std::span<const float> gram;     ///< [cols][cols], symmetric, of all rows; empty: diagonal
  double damping = 0;              ///< is added to its diagonal
  std::span<const float> weights;  ///< diagonal: [rows][cols] > 0; empty: all ones
};

/// Rows, their grids (or tables of levels) and codes, and what follows from them. Every row is a matter of its own: results do not depend on
/// how rows are put into blocks.
struct GridRows {
  GridShape shape;
  std::span<const float> x;  ///< [rows][cols]
  RowCurvature curvature;
  std::vector<double> step, offset;  ///< [rows][groups]; a step of 0: the group has one level, its offset
  std::vector<float> table;          ///< [rows][groups][levels] ascending: levels of their own; empty: grids
  std::vector<Code> codes;           ///< [rows][cols]
  std::vector<float> error, pull;    ///< [rows][cols]: e = level - x, and e H
  std::vector<double> loss;          ///< [rows]: e H e^T

  /// Room for the shape; steps 0.
  void prepare(const GridShape& wanted, std::span<const float> values, const RowCurvature& costs);
  [[nodiscard]] std::size_t book(std::size_t row, std::size_t col) const noexcept {
    return row * shape.groups() + col / shape.group;
  }
  [[nodiscard]] double level(std::size_t book, std::size_t code) const noexcept {
    if (!table.empty()) return double{table[book * shape.levels + code]};
    return step[book] > 0 ? offset[book] + step[book] * (shape.first + static_cast<double>(code)) : offset[book];
  }
  /// False: the codebook has one level.
  [[nodiscard]] bool has_choice(std::size_t book) const noexcept { return !table.empty() || step[book] > 0; }
  /// The code whose level is nearest to a value; of a table the first of several.
  [[nodiscard]] Code nearest(std::size_t book, double value) const noexcept;
  /// H_jj of a row.
  [[nodiscard]] double diagonal(std::size_t row, std::size_t col) const noexcept;
};

/// Errors of the codes as they are.
void measure_errors(GridRows& rows);
/// pull of the errors as they are.
void pull_rows(GridRows& rows);
/// Errors, pull and losses of the codes as they are. With a Gram matrix one product of 2 rows cols^2 operations.
void measure_rows(GridRows& rows);
/// Losses of errors and pull as they are: what measure_rows says, up to rounding, without a product.
void sum_losses(GridRows& rows);
/// The nearest code for every weight.
void assign_nearest(GridRows& rows);

/// The best steps (and offsets) of all grids for the codes as they are, one group after another, each in closed form
/// with the others held fast: the least of a parabola, so that no loss rises. A step that would not be positive stays.
/// In: pull of the codes. Out: errors and pull, up to rounding. Cost: one product as measure_rows.
void rescale_rows(GridRows& rows);

/// The best levels of all tables for the codes as they are, one group after another with the others held fast: least
/// squares under H, so that no loss rises. Levels without weights stay; levels come back ascending. In: pull of the
/// codes. Out: errors and pull, up to rounding. Cost with a Gram matrix: cols additions a weight and a product as
/// measure_rows.
void refit_levels(GridRows& rows);

/// The best code for each weight in turn, all others held fast: the level nearest to x's own optimum level - pull /
/// H_jj. Every change lowers the loss by what it says. In: errors and pull; out: the same, up to rounding. With
/// a diagonal H that is the nearest code. Cost: at most one product as measure_rows.
void descend_rows(GridRows& rows);

/// The best known of each row.
class BestRows {
 public:
  /// Forgets all.
  void clear(const GridShape& shape);
  /// Keeps the rows whose loss is below that of what is kept. True when there is one by more than `part` of its loss.
  bool keep(const GridRows& rows, double part = 0);
  /// Puts what is kept back; losses too, not errors and pull.
  void restore(GridRows& rows) const;
  [[nodiscard]] const std::vector<double>& losses() const noexcept { return loss_; }

 private:
  std::vector<double> step_, offset_, loss_;
  std::vector<float> table_;
  std::vector<Code> codes_;
};

}  // namespace lmq
