#include <algorithm>
#include <array>
#include <numeric>

#include "grid_rows.hpp"
#include "lmq/kernels/product.hpp"

namespace lmq {
namespace {
constexpr std::size_t kTile = 128;  // columns of H whose sums by level are kept at once

/// The weights of one group, in all rows.
struct Run {
  std::size_t group, begin, end;
  [[nodiscard]] std::size_t size() const noexcept { return end - begin; }
};

/// What the levels of a group have to do with each other: A = Z^T H Z, Z the weights' levels. One matrix to a row.
class Normals {
 public:
  Normals(const GridRows& rows, const Run& run) : rows_(rows), run_(run), levels_(rows.shape.levels) {
    matrix_.assign(rows.shape.rows * levels_ * levels_, 0.0);
    if (rows.curvature.gram.empty())
      for (std::size_t r = 0; r < rows.shape.rows; ++r) add_diagonal(r);
    else
      add_gram();
  }
  /// [levels][levels] of a row.
  [[nodiscard]] double* of(std::size_t r) noexcept { return matrix_.data() + r * levels_ * levels_; }

 private:
  [[nodiscard]] const Code* codes(std::size_t r) const noexcept { return rows_.codes.data() + r * rows_.shape.cols; }
  void add_diagonal(std::size_t r) {
    for (std::size_t j = run_.begin; j < run_.end; ++j)
      of(r)[std::size_t{codes(r)[j]} * (levels_ + 1)] += rows_.diagonal(r, j);
  }
  /// Rows of H added by the levels of their weights, tile by tile of columns; then the columns.
  void add_gram() {
    const std::size_t cols = rows_.shape.cols;
    std::vector<float> sums(levels_ * kTile);
    for (std::size_t first = run_.begin; first < run_.end; first += kTile) {
      const std::size_t width = std::min(kTile, run_.end - first);
      for (std::size_t r = 0; r < rows_.shape.rows; ++r) {
        std::ranges::fill(sums, 0.0F);
        for (std::size_t j = run_.begin; j < run_.end; ++j)
          add_scaled(1.0F, rows_.curvature.gram.data() + j * cols + first, sums.data() + codes(r)[j] * kTile, width);
        for (std::size_t k = 0; k < levels_; ++k)
          for (std::size_t i = 0; i < width; ++i)
            of(r)[k * levels_ + codes(r)[first + i]] += double{sums[k * kTile + i]};
        for (std::size_t i = 0; i < width; ++i)
          of(r)[std::size_t{codes(r)[first + i]} * (levels_ + 1)] += rows_.curvature.damping;
      }
    }
  }

  const GridRows& rows_;
  Run run_;
  std::size_t levels_;
  std::vector<double> matrix_;
};

/// x with A x = b by elimination, A [n][n] positive: its lower half. Unknowns whose pivot is lost in rounding are 0.
void solve(double* a, double* b, std::size_t n) {
  constexpr double kLost = 1e-12;
  std::vector<double> inverse(n, 0.0);
  for (std::size_t k = 0; k < n; ++k) {
    const double whole = a[k * n + k];
    for (std::size_t i = 0; i < k; ++i) {  // row k of L D
      double sum = a[k * n + i];
      for (std::size_t m = 0; m < i; ++m) sum -= a[k * n + m] * a[i * n + m];
      a[k * n + i] = sum;
    }
    double pivot = whole;
    for (std::size_t i = 0; i < k; ++i) {
      const double factor = a[k * n + i] * inverse[i];
      pivot -= factor * a[k * n + i];
      a[k * n + i] = factor;
    }
    inverse[k] = pivot > kLost * whole ? 1 / pivot : 0;
  }
  for (std::size_t k = 0; k < n; ++k)
    for (std::size_t i = 0; i < k; ++i) b[k] -= a[k * n + i] * b[i];
  for (std::size_t k = 0; k < n; ++k) b[k] *= inverse[k];
  for (std::size_t k = n; k-- > 0;)
    for (std::size_t i = k + 1; i < n; ++i) b[k] -= inverse[k] == 0 ? 0 : a[i * n + k] * b[i];
}

/// Levels of one book, ascending again; codes follow.
void sort_levels(GridRows& rows, std::size_t r, const Run& run) {
  const std::size_t levels = rows.shape.levels;
  float* const table = rows.table.data() + (r * rows.shape.groups() + run.group) * levels;
  if (std::is_sorted(table, table + levels)) return;
  std::array<Code, 256> order{}, place{};
  std::iota(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(levels), Code{0});
  std::stable_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(levels),
                   [&](Code a, Code b) { return table[a] < table[b]; });
  std::array<float, 256> sorted{};
  for (std::size_t k = 0; k < levels; ++k) sorted[k] = table[order[k]], place[order[k]] = static_cast<Code>(k);
  std::copy_n(sorted.begin(), levels, table);
  for (std::size_t j = run.begin; j < run.end; ++j) {
    Code& code = rows.codes[r * rows.shape.cols + j];
    code = place[code];
  }
}

/// New levels of a group in all rows; by how much each weight's level moved to moved [rows][run].
void refit(GridRows& rows, const Run& run, std::vector<float>& moved) {
  const std::size_t levels = rows.shape.levels, cols = rows.shape.cols;
  Normals normals(rows, run);
  std::vector<double> pulled(levels);
  moved.resize(rows.shape.rows * run.size());
  for (std::size_t r = 0; r < rows.shape.rows; ++r) {
    const Code* const codes = rows.codes.data() + r * cols;
    float* const table = rows.table.data() + (r * rows.shape.groups() + run.group) * levels;
    std::ranges::fill(pulled, 0.0);
    for (std::size_t j = run.begin; j < run.end; ++j) pulled[codes[j]] -= double{rows.pull[r * cols + j]};
    solve(normals.of(r), pulled.data(), levels);
    for (std::size_t k = 0; k < levels; ++k) {
      const auto level = static_cast<float>(double{table[k]} + pulled[k]);
      pulled[k] = double{level} - double{table[k]}, table[k] = level;
    }
    for (std::size_t j = run.begin; j < run.end; ++j)
      moved[r * run.size() + j - run.begin] = static_cast<float>(pulled[codes[j]]);
    sort_levels(rows, r, run);
  }
}

/// pull += moved H.
void follow(GridRows& rows, const Run& run, const std::vector<float>& moved) {
  const std::size_t cols = rows.shape.cols, n = run.size();
  const RowCurvature& h = rows.curvature;
  const auto damping = static_cast<float>(h.damping);
  for (std::size_t r = 0; r < rows.shape.rows; ++r)
    for (std::size_t j = run.begin; j < run.end; ++j) {
      const std::size_t i = r * cols + j;
      const float own = !h.gram.empty() ? damping : h.weights.empty() ? 1.0F : h.weights[i];
      rows.pull[i] += own * moved[r * n + j - run.begin];
    }
  if (h.gram.empty()) return;
  const auto step = static_cast<std::ptrdiff_t>(cols);
  add_product({rows.shape.rows, n, cols}, {moved.data(), static_cast<std::ptrdiff_t>(n), 1},
              {h.gram.data() + run.begin * cols, step, 1}, {rows.pull.data(), step, 1});
}
}  // namespace

void refit_levels(GridRows& rows) {
  std::vector<float> moved;
  for (std::size_t g = 0; g < rows.shape.groups(); ++g) {
    const Run run{g, g * rows.shape.group, rows.shape.group_end(g)};
    refit(rows, run, moved);
    follow(rows, run, moved);
  }
  measure_errors(rows);
}

}  // namespace lmq
