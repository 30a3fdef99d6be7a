#include "feedback.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lmq/kernels/product.hpp"
#include "lmq/quant/curvature_factor.hpp"

namespace lmq {
namespace {
constexpr std::size_t kPanel = 64;

/// Decides weight p of the order of a row; returns its negative error.
float decide(GridRows& rows, std::size_t r, const FeedbackFactor& factor, std::size_t p, float wanted) {
  const std::size_t col = factor.order[p], i = r * rows.shape.cols + col, book = rows.book(r, col);
  const double target = double{wanted};
  rows.codes[i] = rows.nearest(book, target);
  const double level = rows.level(book, rows.codes[i]), miss = factor.pivot[p] * (level - target);
  rows.loss[r] += miss * miss;
  return static_cast<float>(double{rows.x[i]} - level);
}

/// Decides weights [begin, end) of the order of one row, the last first. targets: [cols] of the row in the order; minus
/// [end - begin]: the negative errors.
// More than 5 parameters: inner loop of a row, whose buffers belong to the caller.
void decide_panel(GridRows& rows, std::size_t r, const FeedbackFactor& factor, std::size_t begin, std::size_t end,
                  float* targets, float* minus) {
  const std::size_t cols = rows.shape.cols;
  for (std::size_t p = end; p-- > begin;) {
    minus[p - begin] = decide(rows, r, factor, p, targets[p]);
    add_scaled(minus[p - begin], factor.unit.data() + p * cols + begin, targets + begin, p - begin);
  }
}
}  // namespace

FeedbackFactor feedback_factor(std::span<const float> gram, std::size_t cols, double share, ColumnOrder order) {
  FeedbackFactor factor;
  factor.order.resize(cols);
  std::iota(factor.order.begin(), factor.order.end(), 0U);
  if (order == ColumnOrder::natural) std::ranges::reverse(factor.order);
  if (order == ColumnOrder::curvature)
    std::ranges::stable_sort(factor.order, {}, [&](std::uint32_t c) { return gram[c * cols + c]; });
  std::vector<double> ordered(cols * cols);
  for (std::size_t i = 0; i < cols; ++i)
    for (std::size_t j = 0; j < cols; ++j)
      ordered[i * cols + j] = double{gram[std::size_t{factor.order[i]} * cols + factor.order[j]]};
  CurvatureFactor taken = factor_curvature(ordered, cols, share, mean_diagonal(ordered, cols), "Gram matrix");
  factor.unit = std::move(taken.unit), factor.pivot = std::move(taken.pivot);
  for (float& value : factor.unit)
    if (std::fabs(double{value}) < kNothing) value = 0;  // products that are no normal floats take tens of times longer
  factor.damping = taken.is_identity ? 1 : taken.damping;
  return factor;
}

void feedback_rows(GridRows& rows, const FeedbackFactor& factor, std::vector<float>& room) {
  const std::size_t cols = rows.shape.cols, count = rows.shape.rows;
  const auto step = static_cast<std::ptrdiff_t>(cols);
  room.resize(count * (cols + kPanel));
  float* const targets = room.data();
  float* const minus = room.data() + count * cols;
  for (std::size_t r = 0; r < count; ++r) {
    rows.loss[r] = 0;
    for (std::size_t p = 0; p < cols; ++p) targets[r * cols + p] = rows.x[r * cols + factor.order[p]];
  }
  for (std::size_t end = cols; end > 0;) {
    const std::size_t begin = (end - 1) / kPanel * kPanel, n = end - begin;
    for (std::size_t r = 0; r < count; ++r)
      decide_panel(rows, r, factor, begin, end, targets + r * cols, minus + r * n);
    add_product({count, n, begin}, {minus + n - 1, static_cast<std::ptrdiff_t>(n), -1},
                {factor.unit.data() + (end - 1) * cols, -step, 1}, {targets, step, 1});
    end = begin;
  }
}

void feedback_rows_reference(GridRows& rows, const FeedbackFactor& factor) {
  const std::size_t cols = rows.shape.cols;
  std::vector<float> minus(cols);
  for (std::size_t r = 0; r < rows.shape.rows; ++r) {
    rows.loss[r] = 0;
    for (std::size_t p = cols; p-- > 0;) {
      float target = rows.x[r * cols + factor.order[p]];
      for (std::size_t k = cols; --k > p;) target = std::fma(minus[k], factor.unit[k * cols + p], target);
      minus[p] = decide(rows, r, factor, p, target);
    }
  }
}

}  // namespace lmq
