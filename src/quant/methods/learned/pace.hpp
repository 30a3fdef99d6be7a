#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

#include "matrix/grid_rows.hpp"

namespace lmq {

inline constexpr double kBeta1 = 0.9, kBeta2 = 0.999;
inline constexpr double kPace = 3.0, kFastest = 0.05;  // steps of Adam together, and the largest, in grid steps
inline constexpr double kStepPace = 0.7;               // of ln step beside that

/// (1 + cos(pi part)) / 2, part in [0, 1]: the square of a cosine's series, to 1e-13.
[[nodiscard]] inline double cosine(double part) noexcept {
  const double x = part * 1.57079632679489661923, square = x * x;
  double sum = 1;
  for (int k = 9; k > 0; --k) sum = 1 - sum * square / ((2 * k - 1) * (2 * k));
  return sum * sum;
}

/// A step of Adam (Kingma & Ba 2015).
struct Pace {
  double latent = 0, log_step = 0, correct1 = 1, correct2 = 1;
  /// What a parameter moves at rate 1; its moments follow the gradient.
  [[nodiscard]] double move(double gradient, double& first, double& second) const noexcept {
    constexpr double kTiny = 1e-12;
    first += (1 - kBeta1) * (gradient - first);
    second += (1 - kBeta2) * (gradient * gradient - second);
    return first * correct1 / (std::sqrt(second * correct2) + kTiny);
  }
};
/// Rates of step `step` of `steps`; beta1, beta2: kBeta1 and kBeta2 to the power step + 1.
[[nodiscard]] inline Pace pace_of(std::size_t step, std::size_t steps, double beta1, double beta2) noexcept {
  const double part = static_cast<double>(step) / static_cast<double>(steps);
  const double rate = std::min(kFastest, kPace / static_cast<double>(steps)) * cosine(part);
  return {rate, rate * kStepPace, 1 / (1 - beta1), 1 / (1 - beta2)};
}

/// A sum in 8 lanes.
[[nodiscard]] inline double sum_of(const double* values, std::size_t count) noexcept {
  std::array<double, 8> lane{};
  for (std::size_t i = 0; i < count; ++i) lane[i % 8] += values[i];
  double sum = 0;
  for (const double one : lane) sum += one;
  return sum;
}

/// The weights of one grid.
struct Run {
  std::size_t row = 0, book = 0, begin = 0, count = 0;  ///< begin: in the block
};
template <class Visit>
void each_run(const GridShape& shape, const Visit& visit) {
  for (std::size_t r = 0; r < shape.rows; ++r)
    for (std::size_t g = 0; g < shape.groups(); ++g)
      visit(Run{r, r * shape.groups() + g, r * shape.cols + g * shape.group, shape.group_end(g) - g * shape.group});
}

/// w H w^T / cols of every row: what losses are measured by. Errors and pull are lost.
[[nodiscard]] std::vector<double> row_norms(GridRows& rows);

}  // namespace lmq
