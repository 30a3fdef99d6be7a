#include "free_levels.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/grid_rounding.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/kernels/pack.hpp"
#include "matrix/row_blocks.hpp"

namespace lmq {
namespace {
constexpr std::size_t kRounds = 8;  // of codes and levels in turn; most gain little after four
constexpr double kStill = 1e-3;     // part of the loss that a round must gain somewhere

/// What one worker keeps.
struct Scratch : RowBlock {
  Workspace fit;
  BestRows best;
  std::vector<float> room, diagonal;
};
Pool<Scratch>& pool() {
  static Pool<Scratch> scratch;
  return scratch;
}

GridShape shape_of(const RowBlocks& blocks, std::size_t levels) noexcept {
  return {0, static_cast<std::size_t>(blocks.cols), static_cast<std::size_t>(blocks.group), levels};
}

/// Exact partitions by the diagonal; returns the most levels that one has. Codes are the nearest.
std::size_t start(const PartitionQuantizer& partition, Scratch& mine) {
  GridRows& rows = mine.rows;
  const GridShape& shape = rows.shape;
  const RowCurvature& h = rows.curvature;
  mine.diagonal.clear();
  if (!h.gram.empty())
    for (std::size_t c = 0; c < shape.cols; ++c) mine.diagonal.push_back(static_cast<float>(rows.diagonal(0, c)));
  rows.table.resize(shape.rows * shape.groups() * shape.levels);
  std::size_t most = 1;
  for (std::size_t r = 0; r < shape.rows; ++r)
    for (std::size_t g = 0; g < shape.groups(); ++g) {
      const std::size_t begin = g * shape.group, count = shape.group_end(g) - begin, at = r * shape.cols + begin;
      std::span<const float> weights;
      if (!h.gram.empty()) weights = std::span<const float>(mine.diagonal).subspan(begin, count);
      if (!h.weights.empty()) weights = h.weights.subspan(at, count);
      const Codebook book = partition.fit_values(rows.x.subspan(at, count), weights, mine.fit);
      const auto levels = book.levels();
      float* const table = rows.table.data() + (r * shape.groups() + g) * shape.levels;
      std::fill(std::ranges::copy(levels, table).out, table + shape.levels, levels.back());
      most = std::max(most, levels.size());
    }
  assign_nearest(rows);
  return most;
}

/// Codes and levels in turn from what is best.
void descend(GridRows& rows, BestRows& best) {
  best.restore(rows);
  measure_rows(rows);
  for (std::size_t round = 0; round < kRounds; ++round) {
    descend_rows(rows);
    refit_levels(rows);
    measure_rows(rows);
    if (!best.keep(rows, kStill)) return;
  }
}

void improve(const FeedbackFactor& factor, Scratch& mine) {
  GridRows& rows = mine.rows;
  measure_rows(rows);
  mine.best.clear(rows.shape);
  mine.best.keep(rows);
  feedback_rows(rows, factor, mine.room);
  mine.best.keep(rows);
  descend(rows, mine.best);
  mine.best.restore(rows);
}

void decode(const QuantizedUnit& unit, std::size_t first_row, const GridRows& rows, std::span<float> out) {
  const GridShape& shape = rows.shape;
  for (std::size_t r = 0; r < shape.rows; ++r)
    for (std::size_t g = 0; g < shape.groups(); ++g) {
      const std::size_t begin = r * shape.cols + g * shape.group, count = shape.group_end(g) - g * shape.group;
      const std::size_t book = (first_row + r) * shape.groups() + g;
      table_values(std::span<const Code>(rows.codes).subspan(begin, count),
                   std::span<const float>(unit.book).subspan(book * unit.levels, unit.levels),
                   out.subspan(begin, count));
    }
}

}  // namespace

FreeLevelQuantizer::FreeLevelQuantizer(std::size_t levels)
    : PartitionQuantizer(levels, ZeroRule::off,
                         {.sees = Sees::rows, .detail = Detail::levels, .cost = {.row_few = 30}}),
      levels_(levels) {}

// More than 40 lines: two passes over the same blocks, before and after their tables are rounded.
UnitStats FreeLevelQuantizer::quantize_rows(const RowWindow& window, QuantizedUnit& unit) const {
  const RowBlocks blocks(window, unit);
  GridShape shape = shape_of(blocks, levels_);
  unit.kind = CodebookKind::table;
  unit.levels = static_cast<std::uint32_t>(levels_);
  unit.book.assign(static_cast<std::size_t>(blocks.rows) * shape.groups() * levels_, 0.0F);
  const auto lease = known_factors().lease();
  const KnownFactor* const known = blocks.by_gram() ? &factor_of(window.importance, shape.cols, {}, *lease) : nullptr;
  const FeedbackFactor* const factor = known != nullptr ? &known->factor : nullptr;
  PerWorker<Scratch> scratch(pool(), thread_count());
  std::vector<std::size_t> most(blocks.count(), 1);
  parallel_for_worker(blocks.count(), [&](std::size_t b, std::size_t worker) {
    Scratch& mine = scratch[worker];
    blocks.load(b, shape, known, mine);
    most[b] = start(*this, mine);
    if (factor != nullptr) improve(*factor, mine), most[b] = levels_;
    const auto first = static_cast<std::size_t>(blocks.first(b));
    const std::size_t own = shape.groups() * levels_;
    for (std::size_t i = 0; i < mine.rows.table.size(); ++i)
      unit.book[first * own + i] = static_cast<float>(double{mine.rows.table[i]} / mine.scale[i / own]);
    std::ranges::copy(mine.rows.codes, unit.codes.begin() + static_cast<std::ptrdiff_t>(first * shape.cols));
  });
  narrow_tables(unit, std::ranges::max(most));
  round_levels(unit.book, unit.level_type);
  for (float& number : unit.book) number += 0.0F;  // -0 becomes +0
  shape.levels = unit.levels;
  std::vector<float> decoded(static_cast<std::size_t>(unit.count));
  std::vector<double> losses(factor != nullptr ? blocks.count() : 0);
  parallel_for_worker(blocks.count(), [&](std::size_t b, std::size_t worker) {
    Scratch& mine = scratch[worker];
    blocks.load(b, shape, known, mine);
    const auto first = static_cast<std::size_t>(blocks.first(b));
    const std::size_t own = shape.groups() * shape.levels;
    const auto codes = std::span(unit.codes).subspan(first * shape.cols, mine.x.size());
    for (std::size_t i = 0; i < mine.rows.shape.rows * own; ++i)
      mine.rows.table.push_back(static_cast<float>(double{unit.book[first * own + i]} * mine.scale[i / own]));
    std::ranges::copy(codes, mine.rows.codes.begin());
    if (factor != nullptr) measure_rows(mine.rows);
    descend_rows(mine.rows);
    if (factor != nullptr) sum_losses(mine.rows), losses[b] = unscaled_loss(mine);
    std::ranges::copy(mine.rows.codes, codes.begin());
    decode(unit, first, mine.rows, std::span(decoded).subspan(first * shape.cols, codes.size()));
  });
  scratch.finish([](Scratch&) {});
  UnitStats stats = measure_error(window.view, decoded, window.importance);
  if (factor != nullptr) stats.layer_loss = std::accumulate(losses.begin(), losses.end(), 0.0);
  return stats;
}

RowNeeds FreeLevelQuantizer::row_needs(std::uint64_t count, std::uint64_t cols) const {
  // Decoded values; for each thread a block: x, weights, error, pull, targets, codes thrice, tables twice and their
  // normal equations.
  const std::uint64_t row = std::max<std::uint64_t>(1, cols);
  const std::uint64_t rows = std::min(RowBlocks::rows_of(cols), ceil_div(count, row));
  return {count * 4 + thread_count() * rows * (row * (5 * 4 + 3 + 12) + 8 * levels_ * levels_), 0};
}

LayerNeeds FreeLevelQuantizer::layer_needs(const LayerShape& shape) const {
  constexpr double kProduct = 5e-11, kPivot = 4e-11, kSum = 2e-10;  // seconds an operation
  const auto cols = static_cast<double>(shape.cols), weights = static_cast<double>(shape.rows) * cols;
  LayerNeeds needs;
  needs.scratch_bytes = 24 * shape.cols * shape.cols;
  needs.factor_seconds = kPivot * cols * cols * cols / 3;
  needs.seconds = static_cast<double>(kRounds) / 2 * cols * weights * (3 * 2 * kProduct + kSum);
  return needs;
}

}  // namespace lmq
