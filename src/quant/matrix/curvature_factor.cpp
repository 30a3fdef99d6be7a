#include "lmq/quant/curvature_factor.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "lmq/base/error.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/kernels/product.hpp"
#include "lmq/kernels/rate_cells.hpp"

namespace lmq {
namespace {
constexpr std::size_t kPanel = 64;
constexpr unsigned kMaxRaised = 6;
constexpr double kAsymmetry = 1e-5, kFirstShare = 1e-6;

void check(std::span<const double> matrix, std::size_t size, const std::string& place) {
  if (matrix.size() != size * size)
    fail(Errc::malformed, fmt::format("{}: {} numbers, expected {} x {}", place, matrix.size(), size, size));
  for (std::size_t i = 0; i < size; ++i)
    for (std::size_t j = 0; j <= i; ++j) {
      const double below = matrix[i * size + j], above = matrix[j * size + i];
      if (!std::isfinite(below) || !std::isfinite(above))
        fail(Errc::malformed, fmt::format("{}: element ({}, {}) is not finite", place, i, j));
      if (i == j && below < 0)
        fail(Errc::malformed, fmt::format("{}: diagonal element {} is {}, expected at least 0", place, i, below));
      if (std::abs(below - above) > kAsymmetry * std::sqrt(matrix[i * size + i] * matrix[j * size + j]))
        fail(Errc::malformed, fmt::format("{}: elements ({}, {}) and ({}, {}) are {} and {}: not symmetric", place, i,
                                          j, j, i, below, above));
    }
}

/// The upper half of the damped matrix: row k will be column k of B.
std::vector<double> damped(std::span<const double> matrix, std::size_t size, double damping) {
  std::vector<double> upper(size * size);
  for (std::size_t k = 0; k < size; ++k)
    for (std::size_t i = k; i < size; ++i) upper[k * size + i] = matrix[i * size + k] + (i == k ? damping : 0.0);
  return upper;
}

/// Row k from its sums: its pivot and the elements after it. False where the pivot is not above 0.
bool finish_row(std::span<double> row, std::size_t k) noexcept {
  if (!(row[k] > 0) || !std::isfinite(row[k])) return false;
  const double pivot = std::sqrt(row[k]);
  row[k] = pivot;
  for (std::size_t i = k + 1; i < row.size(); ++i) row[i] /= pivot;
  return true;
}

/// Rows of a panel, each less those before it in the panel: chains over k ascend.
bool factor_panel(std::vector<double>& upper, std::size_t size, std::size_t begin, std::size_t end) {
  const auto step = static_cast<std::ptrdiff_t>(size);
  std::vector<double> minus(kPanel);
  for (std::size_t j = begin; j < end; ++j) {
    for (std::size_t k = begin; k < j; ++k) minus[k - begin] = -upper[k * size + j];
    add_product({1, j - begin, size - j}, {minus.data(), 0, 1}, {upper.data() + begin * size + j, step, 1},
                {upper.data() + j * size + j, step, 1});
    if (!finish_row(std::span(upper).subspan(j * size, size), j)) return false;
  }
  return true;
}

bool factor_in_panels(std::vector<double>& upper, std::size_t size) {
  const auto step = static_cast<std::ptrdiff_t>(size);
  std::vector<double> minus(kPanel * size);
  for (std::size_t begin = 0; begin < size; begin += kPanel) {
    const std::size_t end = std::min(begin + kPanel, size), blocks = (size - end + kPanel - 1) / kPanel;
    if (!factor_panel(upper, size, begin, end)) return false;
    for (std::size_t k = begin; k < end; ++k)
      for (std::size_t i = end; i < size; ++i) minus[(k - begin) * size + i] = -upper[k * size + i];
    parallel_for(blocks, [&](std::size_t block) {
      const std::size_t row = end + block * kPanel, rows = std::min(kPanel, size - row);
      add_product({rows, end - begin, size - row}, {minus.data() + row, 1, step},
                  {upper.data() + begin * size + row, step, 1}, {upper.data() + row * size + row, step, 1});
    });
  }
  return true;
}

bool factor_plainly(std::vector<double>& upper, std::size_t size) {
  for (std::size_t j = 0; j < size; ++j) {
    for (std::size_t i = j; i < size; ++i)
      for (std::size_t k = 0; k < j; ++k)
        upper[j * size + i] = std::fma(-upper[k * size + j], upper[k * size + i], upper[j * size + i]);
    if (!finish_row(std::span(upper).subspan(j * size, size), j)) return false;
  }
  return true;
}

void take(const std::vector<double>& upper, CurvatureFactor& factor) {
  const std::size_t size = factor.size;
  factor.unit.assign(size * size, 0.0F);
  for (std::size_t k = 0; k < size; ++k) {
    const double pivot = upper[k * size + k];
    factor.pivot.push_back(pivot);
    factor.floored += pivot * pivot < 1.5 * 1.5 * factor.damping ? 1 : 0;
    factor.unit[k * size + k] = 1;
    for (std::size_t i = k + 1; i < size; ++i)
      factor.unit[i * size + k] = static_cast<float>(upper[k * size + i] / pivot);
  }
}

// More than 5 parameters: place is for messages, mean is known already.
template <class Engine>
CurvatureFactor factor_with(const Engine& engine, std::span<const double> matrix, std::size_t size, double share,
                            double mean, const std::string& place) {
  check(matrix, size, place);
  CurvatureFactor factor;
  factor.size = size;
  if (!(mean > 0) && std::ranges::all_of(matrix, [](double x) { return x == 0; })) {
    factor.is_identity = true;
    factor.unit.assign(size * size, 0.0F);
    factor.pivot.assign(size, 1.0);
    for (std::size_t k = 0; k < size; ++k) factor.unit[k * size + k] = 1;
    return factor;
  }
  for (;; ++factor.raised) {
    factor.damping = share * mean;
    std::vector<double> upper = damped(matrix, size, factor.damping);
    if (engine(upper, size)) {
      take(upper, factor);
      return factor;
    }
    if (factor.raised == kMaxRaised)
      fail(Errc::malformed, fmt::format("{}: not positive definite with {} of its mean diagonal added", place, share));
    share = std::max(share * 10, kFirstShare);
  }
}
}  // namespace

CurvatureFactor factor_curvature(std::span<const double> matrix, std::size_t size, double share, double mean,
                                 const std::string& place) {
  return factor_with(factor_in_panels, matrix, size, share, mean, place);
}

CurvatureFactor factor_curvature_reference(std::span<const double> matrix, std::size_t size, double share, double mean,
                                           const std::string& place) {
  return factor_with(factor_plainly, matrix, size, share, mean, place);
}

double mean_diagonal(std::span<const double> matrix, std::size_t size) noexcept {
  double sum = 0;
  for (std::size_t k = 0; k < size; ++k) sum += matrix[k * size + k];
  return size > 0 ? sum / static_cast<double>(size) : 0;
}

double feedback_gain(const CurvatureFactor& factor, std::span<const double> matrix) noexcept {
  if (factor.is_identity || factor.size == 0) return 0;
  double bits = 0;
  for (std::size_t k = 0; k < factor.size; ++k)
    bits += 0.5 * plain_log2(matrix[k * factor.size + k] + factor.damping) - plain_log2(factor.pivot[k]);
  return std::max(bits / static_cast<double>(factor.size), 0.0);
}

std::vector<double> noise_gain(const CurvatureFactor& factor) {
  const std::size_t n = factor.size;
  const auto step = static_cast<std::ptrdiff_t>(n);
  std::vector<double> gain(n, 0.0);
  parallel_for((n + kPanel - 1) / kPanel, [&](std::size_t block) {
    const std::size_t first = block * kPanel, width = std::min(kPanel, n - first);
    std::vector<float> inverse((n - first) * width), sums(kPanel * width);  // columns of the inverse of B'
    const auto row = [&](std::size_t i) { return inverse.data() + (i - first) * width; };
    for (std::size_t begin = first; begin < n; begin += kPanel) {
      const std::size_t rows = std::min(kPanel, n - begin);
      std::ranges::fill(sums, 0.0F);
      add_product({rows, begin - first, width}, {factor.unit.data() + begin * n + first, step, 1},
                  {inverse.data(), static_cast<std::ptrdiff_t>(width), 1},
                  {sums.data(), static_cast<std::ptrdiff_t>(width), 1});
      for (std::size_t i = begin; i < begin + rows; ++i) {
        float* sum = sums.data() + (i - begin) * width;
        for (std::size_t k = begin; k < i; ++k) add_scaled(factor.unit[i * n + k], row(k), sum, width);
        for (std::size_t j = 0; j < width; ++j) {
          row(i)[j] = (i == first + j ? 1.0F : 0.0F) - sum[j];
          const double part = row(i)[j] / factor.pivot[i];
          gain[first + j] += part * part;
        }
      }
    }
    for (std::size_t j = first; j < first + width; ++j)
      gain[j] = std::max(gain[j] * factor.pivot[j] * factor.pivot[j], 1.0);
  });
  return gain;
}

}  // namespace lmq
