#include "feedback.hpp"

#include <algorithm>
#include <numeric>

#include "lmq/kernels/product.hpp"
#include "lmq/quant/curvature_factor.hpp"

namespace lmq {
namespace {
constexpr std::size_t kPanel = 64;

/// Decides weights [begin, end) of the order of one row, the last first. targets: [cols] of the row in the order; minus
/// [end - begin]: the negative errors.
void decide_panel(GridRows& rows, std::size_t r, const FeedbackFactor& factor, std::size_t begin, std::size_t end,
                  float* targets, float* minus) {
  const std::size_t cols = rows.shape.cols;
  for (std::size_t p = end; p-- > begin;) {
    const std::size_t col = factor.order[p], i = r * cols + col, book = rows.book(r, col);
    const double target = double{targets[p]};
    rows.codes[i] = rows.nearest(book, target);
    const double level = rows.level(book, rows.codes[i]), miss = factor.pivot[p] * (level - target);
    rows.loss[r] += miss * miss;
    const auto error = static_cast<float>(level - double{rows.x[i]});
    minus[p - begin] = -error;
    const float* const unit = factor.unit.data() + p * cols;
    for (std::size_t q = begin; q < p; ++q) targets[q] -= error * unit[q];
  }
}
}  // namespace

FeedbackFactor feedback_factor(std::span<const float> gram, std::size_t cols, double share) {
  FeedbackFactor factor;
  factor.order.resize(cols);
  std::iota(factor.order.begin(), factor.order.end(), 0U);
  std::ranges::stable_sort(factor.order, {}, [&](std::uint32_t c) { return gram[c * cols + c]; });
  std::vector<double> ordered(cols * cols);
  for (std::size_t i = 0; i < cols; ++i)
    for (std::size_t j = 0; j < cols; ++j)
      ordered[i * cols + j] = double{gram[std::size_t{factor.order[i]} * cols + factor.order[j]]};
  CurvatureFactor taken = factor_curvature(ordered, cols, share, mean_diagonal(ordered, cols), "Gram matrix");
  factor.unit = std::move(taken.unit), factor.pivot = std::move(taken.pivot);
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
    add_product({count, n, begin}, {minus, static_cast<std::ptrdiff_t>(n), 1},
                {factor.unit.data() + begin * cols, step, 1}, {targets, step, 1});
    end = begin;
  }
}

}  // namespace lmq
