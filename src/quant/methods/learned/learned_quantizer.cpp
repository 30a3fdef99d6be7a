#include "learned_quantizer.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/grid_rounding.hpp"
#include "lmq/base/math.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/base/pool.hpp"
#include "lmq/kernels/pack.hpp"
#include "matrix/row_blocks.hpp"

namespace lmq {
namespace {
constexpr std::size_t kMaxBins = std::size_t{1} << 16;

/// The two numbers of a stored grid.
struct Numbers {
  float low = 0, step = 0;
};
Numbers numbers_of(double step, double offset, const GridShape& shape, double scale) noexcept {
  if (!(step > 0)) return {static_cast<float>(offset * scale), 0};
  if (static_cast<float>(step * scale) == 0)  // one level in the middle
    return {static_cast<float>((offset + step * (shape.first + static_cast<double>(shape.levels - 1) / 2)) * scale), 0};
  // Readers add to the lowest level: the whole span must be a float.
  const double most = 0x1.ff8p127 / scale / static_cast<double>(std::max<std::size_t>(shape.levels, 2) - 1);
  step = std::min(step, most);
  const double first = shape.first;
  return {static_cast<float>((offset + step * first) * scale), static_cast<float>(step * scale)};
}

/// Rounds grids to what is stored. A step that comes out as 0 leaves one level, in the middle.
void round_numbers(QuantizedUnit& unit) {
  const std::vector<float> wanted = unit.book;
  round_grids(unit.book, unit.levels, unit.level_type);
  bool moved = false;
  for (std::size_t b = 0; b < wanted.size(); b += 2) {
    if (unit.book[b + 1] != 0 || wanted[b + 1] == 0) continue;
    unit.book[b] =
        static_cast<float>(double{wanted[b]} + double{wanted[b + 1]} * (static_cast<double>(unit.levels) - 1) / 2);
    moved = true;
  }
  if (moved) round_levels(unit.book, unit.level_type);
  for (float& number : unit.book) number += 0.0F;  // -0 becomes +0
}

Codebook grid_codebook(double step, double offset, const GridShape& shape, double scale) {
  const std::size_t levels = shape.levels;
  const Numbers numbers{static_cast<float>((offset + (step > 0 ? step * shape.first : 0)) * scale),
                        static_cast<float>(step * scale)};
  if (!(step > 0)) return Codebook::grid(numbers.low, 0, 1);
  const float top = numbers.low + static_cast<float>(levels - 1) * numbers.step;
  if (numbers.step >= 0x1p-126F && std::isfinite(top) && std::isfinite(numbers.low))
    return Codebook::grid(numbers.low, numbers.step, levels);
  constexpr double kMax = std::numeric_limits<float>::max();
  std::vector<float> table;
  for (std::size_t k = 0; k < levels; ++k)
    table.push_back(
        static_cast<float>(std::clamp((offset + step * (shape.first + static_cast<double>(k))) * scale, -kMax, kMax)));
  return Codebook::table(std::move(table));
}

/// What one worker keeps.
struct BlockScratch : RowBlock {
  std::vector<float> levels;
  SolverScratch solver;
};
Pool<BlockScratch>& pool() {
  static Pool<BlockScratch> scratch;
  return scratch;
}

/// Steps and offsets of a block from the numbers as they are stored.
void take_numbers(std::span<const float> numbers, BlockScratch& mine) {
  const std::size_t groups = mine.rows.shape.groups();
  for (std::size_t book = 0; book < mine.rows.step.size(); ++book) {
    const double low = double{numbers[2 * book]}, step = double{numbers[2 * book + 1]},
                 scale = mine.scale[book / groups];
    mine.rows.step[book] = step * scale;
    mine.rows.offset[book] = (step > 0 ? low - step * mine.rows.shape.first : low) * scale;
  }
}

/// What readers will see, to x.
void decode(std::span<const float> numbers, std::span<const Code> codes, const GridShape& shape,
            std::vector<float>& levels, std::span<float> x) {
  levels.resize(shape.levels);
  for (std::size_t r = 0; r < shape.rows; ++r)
    for (std::size_t g = 0; g < shape.groups(); ++g) {
      const std::size_t book = r * shape.groups() + g, begin = r * shape.cols + g * shape.group;
      const std::size_t count = shape.group_end(g) - g * shape.group;
      grid_levels(numbers[2 * book], numbers[2 * book + 1], levels);
      table_values(codes.subspan(begin, count), levels, x.subspan(begin, count));
    }
}

}  // namespace

LearnedQuantizer::LearnedQuantizer(std::size_t levels, ZeroPoint zero, const GridSearch& search, const MethodCost& cost)
    : Quantizer({.sees = Sees::rows, .detail = Detail::cells, .grid = true, .cost = cost}),
      levels_(levels),
      zero_(zero),
      search_(search) {}

Codebook LearnedQuantizer::codebook_of(const Group& group, const GridSearch& search) const {
  std::vector<float> x, weights;
  for (std::size_t j = 0; j < group.size(); ++j) {
    x.push_back(static_cast<float>(group.mean[j]));
    weights.push_back(static_cast<float>(group.mass[j]));
  }
  const double scale = near_one(largest_of(x));
  scale_by(x, scale);
  normalize_weights(weights);
  GridShape shape = grid_shape(x.size(), x.size(), levels_, zero_);
  shape.rows = 1;
  const auto lease = pool().lease();
  GridRows& rows = (*lease).rows;
  rows.prepare(shape, x, {{}, 0, weights});
  solve_grids(rows, search, nullptr, (*lease).solver);
  return grid_codebook(rows.step[0], rows.offset[0], shape, 1 / scale);
}

Fit LearnedQuantizer::fit(const Group& group) const {
  auto ranges = refine_all(group, kMaxBins);
  if (!ranges.empty()) return {Codebook::table({0.0F}), std::move(ranges)};
  return {codebook_of(group, search_), {}};
}

Codebook LearnedQuantizer::approximate_fit(const Group& group) const { return codebook_of(group, {}); }

// More than 40 lines: two passes over the same blocks, before and after their numbers are rounded.
UnitStats LearnedQuantizer::quantize_rows(const RowWindow& window, QuantizedUnit& unit) const {
  const RowBlocks blocks(window, unit);
  const GridShape shape =
      grid_shape(static_cast<std::size_t>(blocks.cols), static_cast<std::size_t>(blocks.group), levels_, zero_);
  const std::size_t per_row = 2 * shape.groups();
  unit.kind = CodebookKind::grid;
  unit.levels = static_cast<std::uint32_t>(levels_);
  unit.book.assign(static_cast<std::size_t>(blocks.rows) * per_row, 0.0F);
  const auto lease = known_factors().lease();
  const KnownFactor* const known =
      blocks.by_gram() ? &factor_of(window.importance, shape.cols, search_.use, *lease) : nullptr;
  const FeedbackFactor* const factor = known != nullptr ? &known->factor : nullptr;
  PerWorker<BlockScratch> scratch(pool(), thread_count());
  parallel_for_worker(blocks.count(), [&](std::size_t b, std::size_t worker) {
    BlockScratch& mine = scratch[worker];
    blocks.load(b, shape, known, mine);
    solve_grids(mine.rows, search_, factor, mine.solver);
    const auto first = static_cast<std::size_t>(blocks.first(b));
    for (std::size_t book = 0; book < mine.rows.step.size(); ++book) {
      const Numbers numbers =
          numbers_of(mine.rows.step[book], mine.rows.offset[book], shape, 1 / mine.scale[book / shape.groups()]);
      unit.book[first * per_row + 2 * book] = numbers.low, unit.book[first * per_row + 2 * book + 1] = numbers.step;
    }
    std::ranges::copy(mine.rows.codes, unit.codes.begin() + static_cast<std::ptrdiff_t>(first * shape.cols));
  });
  round_numbers(unit);
  std::vector<float> decoded(static_cast<std::size_t>(unit.count));
  std::vector<double> losses(factor != nullptr ? blocks.count() : 0);
  parallel_for_worker(blocks.count(), [&](std::size_t b, std::size_t worker) {
    BlockScratch& mine = scratch[worker];
    blocks.load(b, shape, known, mine);
    const auto first = static_cast<std::size_t>(blocks.first(b));
    const auto numbers = std::span<const float>(unit.book).subspan(first * per_row, blocks.size(b) * per_row);
    const auto codes = std::span(unit.codes).subspan(first * shape.cols, mine.x.size());
    take_numbers(numbers, mine);
    std::ranges::copy(codes, mine.rows.codes.begin());
    if (factor != nullptr && search_.single_pass) {
      pass_on_once(mine.rows, *factor, mine.solver);
    } else {
      if (factor != nullptr) measure_rows(mine.rows);
      if (factor == nullptr || search_.descents > 0) descend_rows(mine.rows);
      if (factor != nullptr) sum_losses(mine.rows);
    }
    if (factor != nullptr) losses[b] = unscaled_loss(mine);
    std::ranges::copy(mine.rows.codes, codes.begin());
    decode(numbers, codes, mine.rows.shape, mine.levels, std::span(decoded).subspan(first * shape.cols, codes.size()));
  });
  scratch.finish([](BlockScratch&) {});
  UnitStats stats = measure_error(window.view, decoded, window.importance);
  if (factor != nullptr) stats.layer_loss = std::accumulate(losses.begin(), losses.end(), 0.0);
  return stats;
}

RowNeeds LearnedQuantizer::row_needs(std::uint64_t count, std::uint64_t cols) const {
  // Decoded values; for each thread a block: x, weights, error, pull, targets, codes thrice, three floats of training.
  const std::uint64_t row = std::max<std::uint64_t>(1, cols);
  const std::uint64_t rows = std::min(RowBlocks::rows_of(cols), ceil_div(count, row));
  const std::uint64_t logits = search_.trains && search_.training.backward == Backward::free_logits ? 61 : 0;
  return {count * 4 + thread_count() * rows * row * (5 * 4 + 3 + 12 + logits), 0};
}

LayerNeeds LearnedQuantizer::layer_needs(const LayerShape& shape) const {
  // Seconds an operation: 2 cols to a weight and product, cols^3 / 3; and what decides codes beside a product, a weight.
  constexpr double kProduct = 5e-11, kPivot = 4e-11, kDecide = 5.5e-8;
  const auto cols = static_cast<double>(shape.cols), weights = static_cast<double>(shape.rows) * cols;
  const double descents = static_cast<double>(search_.descents) * 2;
  const double products = search_.trains        ? static_cast<double>(search_.training.steps) + 2 + descents
                          : search_.single_pass ? 2
                                                : static_cast<double>(search_.factors) / 2 + 3 + descents +
                                                      static_cast<double>(search_.again) * (3 + descents);
  LayerNeeds needs;
  needs.scratch_bytes = 24 * shape.cols * shape.cols;
  needs.factor_seconds = kPivot * cols * cols * cols / 3;
  needs.seconds = products * (kProduct * 2 * cols + (search_.trains ? 0 : kDecide)) * weights;
  return needs;
}

}  // namespace lmq
