#include "grid_rows.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>

#include "lmq/kernels/product.hpp"

namespace lmq {
namespace {
constexpr std::size_t kLanes = 8;
constexpr std::size_t kPanel = 64;  // columns of one product in a descent
constexpr double kRound = 0x1.8p52;

double dot(const float* a, const float* b, std::size_t count) noexcept {
  std::array<double, kLanes> lane{};
  for (std::size_t i = 0; i < count; ++i) lane[i % kLanes] += double{a[i]} * double{b[i]};
  double sum = 0;
  for (const double one : lane) sum += one;
  return sum;
}

double total(const float* a, std::size_t count) noexcept {
  double sum = 0;
  for (std::size_t i = 0; i < count; ++i) sum += double{a[i]};
  return sum;
}

std::ptrdiff_t stride(std::size_t count) noexcept { return static_cast<std::ptrdiff_t>(count); }

/// What a group's codes, and an offset, do: their points times H.
struct Panel {
  std::vector<float> points, moved, ones;  // [rows][group], [rows][cols] or [rows][group], [cols] or unused
};

/// points H over the columns [first, first + width), width = all columns with a Gram matrix, else the group's own.
void move_points(const GridRows& rows, std::size_t begin, std::size_t end, Panel& panel) {
  const std::size_t n = end - begin, cols = rows.shape.cols, width = rows.curvature.gram.empty() ? n : cols;
  const RowCurvature& h = rows.curvature;
  panel.points.resize(rows.shape.rows * n);
  panel.moved.assign(rows.shape.rows * width, 0.0F);
  for (std::size_t r = 0; r < rows.shape.rows; ++r)
    for (std::size_t c = begin; c < end; ++c) {
      const std::size_t i = r * cols + c;
      const auto point = static_cast<float>(rows.shape.first + static_cast<double>(rows.codes[i]));
      panel.points[r * n + c - begin] = point;
      float& own = panel.moved[r * width + (h.gram.empty() ? c - begin : c)];
      own = h.gram.empty() ? point * (h.weights.empty() ? 1.0F : h.weights[i]) : static_cast<float>(h.damping) * point;
    }
  if (h.gram.empty()) return;
  add_product({rows.shape.rows, n, cols}, {panel.points.data(), stride(n), 1},
              {h.gram.data() + begin * cols, stride(cols), 1}, {panel.moved.data(), stride(cols), 1});
}

/// 1 H for the ones of a group's columns; of row `row` where H is diagonal.
void move_ones(const GridRows& rows, std::size_t row, std::size_t begin, std::size_t end, std::vector<float>& ones) {
  const std::size_t cols = rows.shape.cols;
  const RowCurvature& h = rows.curvature;
  if (h.gram.empty()) {
    ones.assign(end - begin, 1.0F);
    if (!h.weights.empty()) std::copy_n(h.weights.data() + row * cols + begin, end - begin, ones.data());
    return;
  }
  ones.assign(cols, 0.0F);
  for (std::size_t j = begin; j < end; ++j) {
    add_scaled(1.0F, h.gram.data() + j * cols, ones.data(), cols);
    ones[j] += static_cast<float>(h.damping);
  }
}

/// What step and offset change by: the least of the parabola in one, or both.
struct Change {
  double step = 0, offset = 0;
};
// More than 5 parameters: the five sums of a normal equation, by their names.
Change best_change(double pp, double p1, double oo, double p, double o, bool both) noexcept {
  if (!(pp > 0)) return {0, both && oo > 0 ? o / oo : 0};
  if (!both) return {p / pp, 0};
  const double determinant = pp * oo - p1 * p1;
  if (!(determinant > 1e-9 * pp * oo)) return {p / pp, 0};
  return {(p * oo - o * p1) / determinant, (o * pp - p * p1) / determinant};
}

void rescale_group(GridRows& rows, std::size_t g, Panel& panel) {
  const GridShape& shape = rows.shape;
  const std::size_t begin = g * shape.group, end = shape.group_end(g), n = end - begin;
  const bool diagonal = rows.curvature.gram.empty();
  const std::size_t width = diagonal ? n : shape.cols, first = diagonal ? begin : 0, own = diagonal ? 0 : begin;
  move_points(rows, begin, end, panel);
  if (shape.free_offset && !diagonal) move_ones(rows, 0, begin, end, panel.ones);
  for (std::size_t r = 0; r < shape.rows; ++r) {
    const std::size_t book = r * shape.groups() + g;
    if (!(rows.step[book] > 0)) continue;
    if (shape.free_offset && diagonal) move_ones(rows, r, begin, end, panel.ones);
    const float* const points = panel.points.data() + r * n;
    const float* const moved = panel.moved.data() + r * width;
    float* const pull = rows.pull.data() + r * shape.cols + first;
    const bool free = shape.free_offset;
    const Change change = best_change(dot(points, moved + own, n), free ? total(moved + own, n) : 0,
                                      free ? total(panel.ones.data() + own, n) : 0, -dot(points, pull + own, n),
                                      free ? -total(pull + own, n) : 0, free);
    if (!(rows.step[book] + change.step > 0)) continue;
    rows.step[book] += change.step;
    rows.offset[book] += change.offset;
    add_scaled(static_cast<float>(change.step), moved, pull, width);
    if (free) add_scaled(static_cast<float>(change.offset), panel.ones.data(), pull, width);
  }
}

/// One row's weights of a panel, whose pull is followed in `near` [panel]; changes to `changes` [panel].
// More than 5 parameters: inner loop of a row, whose buffers belong to the caller.
void descend_panel(GridRows& rows, std::size_t r, std::size_t begin, std::size_t end, float* near, float* changes) {
  const std::size_t cols = rows.shape.cols;
  const float* const gram = rows.curvature.gram.data();
  for (std::size_t j = begin; j < end; ++j) {
    const std::size_t i = r * cols + j, book = rows.book(r, j);
    changes[j - begin] = 0;
    const double own = rows.diagonal(r, j);
    if (!rows.has_choice(book) || !(own > 0)) continue;
    const double now = rows.level(book, rows.codes[i]);
    const Code code = rows.nearest(book, now - double{near[j - begin]} / own);
    if (code == rows.codes[i]) continue;
    const auto change = static_cast<float>(rows.level(book, code) - now);
    rows.codes[i] = code;
    rows.error[i] = static_cast<float>(rows.level(book, code) - double{rows.x[i]});
    changes[j - begin] = change;
    const float* const row = gram + j * cols;
    for (std::size_t k = j + 1; k < end; ++k) near[k - begin] += change * row[k];
  }
}
}  // namespace

void GridRows::prepare(const GridShape& wanted, std::span<const float> values, const RowCurvature& costs) {
  shape = wanted, x = values, curvature = costs;
  const std::size_t books = shape.rows * shape.groups();
  table.clear(), step.assign(books, 0.0), offset.assign(books, 0.0), loss.assign(shape.rows, 0.0);
  codes.assign(shape.weights(), 0);
  error.resize(shape.weights()), pull.resize(shape.weights());
}

Code GridRows::nearest(std::size_t book, double value) const noexcept {
  if (!table.empty()) {
    const float* const levels = table.data() + book * shape.levels;
    std::size_t low = 0, high = shape.levels - 1;
    while (low < high) {  // by halves: midpoints do not descend
      const std::size_t middle = (low + high) / 2;
      if (value > 0.5 * (double{levels[middle]} + double{levels[middle + 1]}))
        low = middle + 1;
      else
        high = middle;
    }
    while (low > 0 && levels[low - 1] == levels[low]) --low;
    return static_cast<Code>(low);
  }
  if (!(step[book] > 0)) return 0;
  const double place = (value - offset[book]) / step[book] - shape.first;
  return static_cast<Code>((std::min(std::max(place, 0.0), static_cast<double>(shape.levels - 1)) + kRound) - kRound);
}

double GridRows::diagonal(std::size_t row, std::size_t col) const noexcept {
  if (!curvature.gram.empty()) return double{curvature.gram[col * shape.cols + col]} + curvature.damping;
  return curvature.weights.empty() ? 1.0 : double{curvature.weights[row * shape.cols + col]};
}

void measure_errors(GridRows& rows) {
  const GridShape& shape = rows.shape;
  for (std::size_t r = 0; r < shape.rows; ++r)
    for (std::size_t g = 0; g < shape.groups(); ++g) {
      const std::size_t book = r * shape.groups() + g;
      for (std::size_t c = g * shape.group; c < shape.group_end(g); ++c) {
        const std::size_t i = r * shape.cols + c;
        rows.error[i] = static_cast<float>(rows.level(book, rows.codes[i]) - double{rows.x[i]});
      }
    }
}

void pull_rows(GridRows& rows) {
  const std::size_t cols = rows.shape.cols, count = rows.shape.weights();
  const RowCurvature& h = rows.curvature;
  if (h.gram.empty()) {
    for (std::size_t i = 0; i < count; ++i)
      rows.pull[i] = h.weights.empty() ? rows.error[i] : rows.error[i] * h.weights[i];
    return;
  }
  const auto damping = static_cast<float>(h.damping);
  for (std::size_t i = 0; i < count; ++i) rows.pull[i] = damping * rows.error[i];
  add_product({rows.shape.rows, cols, cols}, {rows.error.data(), stride(cols), 1}, {h.gram.data(), stride(cols), 1},
              {rows.pull.data(), stride(cols), 1});
}

void measure_rows(GridRows& rows) {
  measure_errors(rows);
  pull_rows(rows);
  sum_losses(rows);
}

void sum_losses(GridRows& rows) {
  for (std::size_t r = 0; r < rows.shape.rows; ++r)
    rows.loss[r] =
        dot(rows.error.data() + r * rows.shape.cols, rows.pull.data() + r * rows.shape.cols, rows.shape.cols);
}

void assign_nearest(GridRows& rows) {
  const GridShape& shape = rows.shape;
  for (std::size_t r = 0; r < shape.rows; ++r)
    for (std::size_t c = 0; c < shape.cols; ++c) {
      const std::size_t i = r * shape.cols + c;
      rows.codes[i] = rows.nearest(rows.book(r, c), double{rows.x[i]});
    }
}

void rescale_rows(GridRows& rows) {
  Panel panel;
  for (std::size_t g = 0; g < rows.shape.groups(); ++g) rescale_group(rows, g, panel);
  measure_errors(rows);
}

void descend_rows(GridRows& rows) {
  if (rows.curvature.gram.empty()) {
    assign_nearest(rows);
    measure_errors(rows);
    pull_rows(rows);
    return;
  }
  const std::size_t cols = rows.shape.cols;
  std::vector<float> changes(rows.shape.rows * kPanel), near(kPanel);
  for (std::size_t begin = 0; begin < cols; begin += kPanel) {
    const std::size_t end = std::min(begin + kPanel, cols), n = end - begin;
    bool any = false;
    for (std::size_t r = 0; r < rows.shape.rows; ++r) {
      std::copy_n(rows.pull.data() + r * cols + begin, n, near.data());
      float* const mine = changes.data() + r * n;
      descend_panel(rows, r, begin, end, near.data(), mine);
      for (std::size_t k = 0; k < n; ++k) any |= mine[k] != 0;
    }
    if (!any) continue;
    add_product({rows.shape.rows, n, cols}, {changes.data(), stride(n), 1},
                {rows.curvature.gram.data() + begin * cols, stride(cols), 1}, {rows.pull.data(), stride(cols), 1});
    const auto damping = static_cast<float>(rows.curvature.damping);
    for (std::size_t r = 0; r < rows.shape.rows; ++r)
      for (std::size_t k = 0; k < n; ++k) rows.pull[r * cols + begin + k] += damping * changes[r * n + k];
  }
}

void BestRows::clear(const GridShape& shape) {
  step_.assign(shape.rows * shape.groups(), 0.0), offset_.assign(shape.rows * shape.groups(), 0.0);
  loss_.assign(shape.rows, std::numeric_limits<double>::infinity());
  codes_.assign(shape.weights(), 0), table_.clear();
}

bool BestRows::keep(const GridRows& rows, double part) {
  const std::size_t groups = rows.shape.groups(), cols = rows.shape.cols;
  bool much = false;
  for (std::size_t r = 0; r < rows.shape.rows; ++r) {
    if (!(rows.loss[r] < loss_[r])) continue;
    much |= rows.loss[r] < loss_[r] * (1 - part);
    loss_[r] = rows.loss[r];
    std::copy_n(rows.step.data() + r * groups, groups, step_.data() + r * groups);
    std::copy_n(rows.offset.data() + r * groups, groups, offset_.data() + r * groups);
    std::copy_n(rows.codes.data() + r * cols, cols, codes_.data() + r * cols);
    const std::size_t own = groups * rows.shape.levels;
    if (!rows.table.empty()) table_.resize(rows.table.size());
    if (!rows.table.empty()) std::copy_n(rows.table.data() + r * own, own, table_.data() + r * own);
  }
  return much;
}

void BestRows::restore(GridRows& rows) const {
  rows.step = step_, rows.offset = offset_, rows.table = table_, rows.loss = loss_, rows.codes = codes_;
}

}  // namespace lmq
