#pragma once
#include <cstddef>
#include <cstdint>

namespace lmq {

/// A place between ascending points and what it gains; index i: the first i points lie below.
struct Split {
  double gain;
  std::size_t index;
};

/// The loops of the binary methods for one instruction set; all give the same bits.
struct BinaryScans {
  /// mass, sum [points + 1]: prefix sums of weight and weight * value, values ascending, weights > 0. What two means
  /// gain over one: max over 1 <= i < points of d^2 / (A_i (N - A_i)), d = B_i - A_i T / N; {0, 0} where none gains.
  Split (*two_means)(const double* mass, const double* sum, std::size_t points) noexcept;
  /// Max over 0 <= i < points of (T - B_i)^2 / (N - A_i): the points from i on by their mean, the others by 0.
  Split (*top_mean)(const double* mass, const double* sum, std::size_t points) noexcept;
  /// sum weight |value| (weights nullptr: 1): 16 lanes of double, value i in lane i % 16, added by halves.
  double (*magnitude_sum)(const float* values, const float* weights, std::size_t count) noexcept;
};

/// The widest this machine has and LMQ_ISA allows.
[[nodiscard]] const BinaryScans& binary_scans() noexcept;
/// Baseline, then every wider set this machine has (for tests that compare them).
[[nodiscard]] std::size_t binary_scan_sets(const BinaryScans** sets, std::size_t room) noexcept;

}  // namespace lmq
