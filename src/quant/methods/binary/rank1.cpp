#include "rank1.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/steps.hpp"
#include "core/unit_errors.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/kernels/pack.hpp"
#include "lmq/kernels/widen.hpp"

namespace lmq {
namespace {

constexpr int kMaxRounds = 30;
constexpr double kStill = 1e-4;           // of the loss: what a round must gain
constexpr std::size_t kColumnTask = 128;  // columns of one task
constexpr std::size_t kLanes = 8;

/// u of a weight whose scale is f >= 0.
double unit_of(double x, double f, bool ternary) {
  if (!ternary) return x >= 0 ? 1 : -1;
  return 2 * x > f ? 1 : 2 * x <= -f && f > 0 ? -1 : 0;
}

/// A matrix and what each of its errors weighs.
struct Matrix {
  std::span<const float> x, importance;
  std::size_t rows, cols;
  bool ternary;
  [[nodiscard]] double weight(std::size_t i) const { return importance.empty() ? 1.0 : double{importance[i]}; }
};

/// Sums of a least-squares scale: x against q, q against q, x against x.
struct Sums {
  double xq = 0, qq = 0, xx = 0;
};

/// Row factors by least squares; returns the loss with them.
double fit_rows(const Matrix& m, std::span<double> rows, std::span<const double> cols) {
  std::vector<double> loss(m.rows);
  parallel_for(m.rows, [&](std::size_t r) {
    std::array<Sums, kLanes> lane;
    for (std::size_t c = 0; c < m.cols; ++c) {
      const std::size_t i = r * m.cols + c;
      const double x = m.x[i], h = m.weight(i), q = cols[c] * unit_of(x, rows[r] * cols[c], m.ternary);
      Sums& sums = lane[c % kLanes];
      sums.xq += h * x * q, sums.qq += h * q * q, sums.xx += h * x * x;
    }
    Sums all;
    for (const Sums& sums : lane) all.xq += sums.xq, all.qq += sums.qq, all.xx += sums.xx;
    if (all.qq > 0) rows[r] = std::max(0.0, all.xq / all.qq);
    loss[r] = all.xx - 2 * rows[r] * all.xq + rows[r] * rows[r] * all.qq;
  });
  double sum = 0;
  for (const double one : loss) sum += one;
  return sum;
}

void fit_columns(const Matrix& m, std::span<const double> rows, std::span<double> cols) {
  parallel_for((m.cols + kColumnTask - 1) / kColumnTask, [&](std::size_t task) {
    const std::size_t first = task * kColumnTask, count = std::min(kColumnTask, m.cols - first);
    std::array<double, kColumnTask> xq{}, qq{};
    for (std::size_t r = 0; r < m.rows; ++r)
      for (std::size_t c = 0; c < count; ++c) {
        const std::size_t i = r * m.cols + first + c;
        const double x = m.x[i], h = m.weight(i), q = rows[r] * unit_of(x, rows[r] * cols[first + c], m.ternary);
        xq[c] += h * x * q, qq[c] += h * q * q;
      }
    for (std::size_t c = 0; c < count; ++c)
      if (qq[c] > 0) cols[first + c] = std::max(0.0, xq[c] / qq[c]);
  });
}

/// Columns of mean square 1.
void normalise(std::span<double> rows, std::span<double> cols) {
  double square = 0;
  for (const double c : cols) square += c * c;
  const double scale = std::sqrt(square / static_cast<double>(cols.size()));
  if (!(scale > 0) || !std::isfinite(scale)) return;
  for (double& c : cols) c /= scale;
  for (double& r : rows) r *= scale;
}

/// Code of a weight whose scale, rounded as a reader does, is f >= 0.
Code code_of(float x, float f, bool ternary) {
  const double u = unit_of(x, f, ternary);
  return static_cast<Code>(ternary ? u + 1 : (u + 1) / 2);
}

}  // namespace

Rank1 fit_rank1(std::span<const float> x, std::span<const float> importance, std::uint64_t cols, std::size_t levels,
                std::span<const double> start) {
  const Matrix m{x, importance, start.size(), static_cast<std::size_t>(cols), levels == 3};
  Rank1 fit{{start.begin(), start.end()}, std::vector<double>(m.cols, 1.0), 0};
  fit.loss = fit_rows(m, fit.rows, fit.cols);
  for (int round = 0; round < kMaxRounds; ++round) {
    Rank1 next = fit;
    fit_columns(m, next.rows, next.cols);
    normalise(next.rows, next.cols);
    next.loss = fit_rows(m, next.rows, next.cols);
    if (!(next.loss < fit.loss)) break;
    const bool still = fit.loss - next.loss <= kStill * fit.loss;
    fit = std::move(next);
    if (still) break;
  }
  return fit;
}

UnitStats quantize_rank1(const TensorView& view, const Quantizer& quantizer, const Importance& importance,
                         QuantizedUnit& unit) {
  const std::size_t levels = quantizer.traits().numbered.levels, cols = static_cast<std::size_t>(unit.cols);
  const auto count = static_cast<std::size_t>(unit.count);
  std::vector<float> x(count), weights(importance.kind == Importance::Kind::none ? 0 : count);
  widen(view.dtype, view.bytes, x);
  if (!weights.empty()) importance_at(importance, 0, weights);
  std::vector<double> start(count / cols);
  std::vector<Workspace> scratch(thread_count());
  parallel_for_worker(start.size(), [&](std::size_t r, std::size_t worker) {
    float number = 0;
    const auto mine =
        weights.empty() ? std::span<const float>{} : std::span<const float>(weights).subspan(r * cols, cols);
    quantizer.fit_numbers(std::span(x).subspan(r * cols, cols), mine, scratch[worker], {&number, 1});
    start[r] = number;
  });
  const Rank1 fit = fit_rank1(x, weights, cols, levels, start);
  unit.kind = CodebookKind::rank1;
  unit.group = 0;
  unit.levels = static_cast<std::uint32_t>(levels);
  unit.book.clear();
  for (const double r : fit.rows) unit.book.push_back(static_cast<float>(r));
  for (const double c : fit.cols) unit.book.push_back(static_cast<float>(c));
  unit.book.insert(unit.book.end(), levels == 3 ? 3 : 2, 0.0F);
  unit.book[unit.book.size() - levels] = -1, unit.book.back() = 1;
  round_levels(unit.book, unit.level_type);
  for (float& number : unit.book) number += 0.0F;
  const auto columns = std::span<const float>(unit.book).subspan(start.size(), cols);
  const auto units = std::span<const float>(unit.book).last(levels);
  parallel_for(start.size(), [&](std::size_t r) {
    const auto row = std::span(x).subspan(r * cols, cols);
    const auto codes = std::span(unit.codes).subspan(r * cols, cols);
    for (std::size_t c = 0; c < cols; ++c) codes[c] = code_of(row[c], unit.book[r] * columns[c], levels == 3);
    table_values(codes, units, row);  // x becomes what a reader will see
    scale_values(unit.book[r], columns, row);
  });
  return measure_error(view, x, importance);
}

std::uint64_t rank1_scratch_bytes(std::uint64_t count, std::uint64_t cols) noexcept {
  // Values and importance as floats, factors twice, another unit's codes.
  const std::uint64_t rows = cols > 0 ? count / cols : 0;
  return count * (4 + 4 + 1) + 4 * (rows + cols) * sizeof(double);
}

}  // namespace lmq
