#pragma once
#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace lmq {

/// Curvature of the loss on one side of a layer, taken apart: S + damping I = B B^T, B lower triangular.
struct CurvatureFactor {
  std::size_t size = 0;
  std::vector<float> unit;    ///< [size][size], row-major: B_ij / B_jj below the diagonal, 1 on it, 0 above
  std::vector<double> pivot;  ///< B_jj > 0
  double damping = 0;         ///< what was added to the diagonal
  unsigned raised = 0;        ///< how often the damping was made ten times larger because a pivot was not above 0
  bool is_identity = false;   ///< the matrix was all zero, and the mean, too
  std::size_t floored = 0;    ///< pivots within 1.5 of what the damping alone gives: directions without data
};

/// Factors a symmetric matrix; its lower half is taken.
/// matrix   [size][size], row-major, a mean of outer products                 (loss per square of the weights' unit)
/// share    damping as a share of `mean`; .003 serves input sides, .2 output sides (docs/methods/waterfill.md)
/// mean     mean diagonal of the whole side: of all rows of a layer also where the matrix is a block of them
/// place    names the matrix in errors
/// All zero with a mean of 0 counts as the identity. A pivot not above 0 makes the damping ten times larger, six times at
/// most. Errors   Errc::malformed: another size, a number that is not finite, a diagonal below 0, not symmetric beyond
/// 1e-5 of
///          sqrt(S_ii S_jj), no positive pivots after all
/// Cost     size^3 / 3 fused multiply-adds and 12 size^2 bytes
/// Same bits for any threads and instruction set: every element is one chain of fused multiply-adds in double
[[nodiscard]] CurvatureFactor factor_curvature(std::span<const double> matrix, std::size_t size, double share,
                                               double mean, const std::string& place);
/// The same in one plain loop: the meaning, and the twin for tests.
[[nodiscard]] CurvatureFactor factor_curvature_reference(std::span<const double> matrix, std::size_t size, double share,
                                                         double mean, const std::string& place);

/// Mean of the diagonal.
[[nodiscard]] double mean_diagonal(std::span<const double> matrix, std::size_t size) noexcept;

/// Bits a weight that passing errors on saves at equal loss against steps by the diagonal alone: the mean of
/// log2 sqrt(S_jj + damping) - log2 B_jj, never below 0 (Hadamard's inequality).
[[nodiscard]] double feedback_gain(const CurvatureFactor& factor, std::span<const double> matrix) noexcept;

/// By how much the error of a weight is larger than its share of the loss asks for: B_jj^2 (S^-1)_jj >= 1. With errors
/// passed on, a target of pivots A_ii, B_jj moves by e_w^2 (a_i b_j - 1) where a, b are the gains of both sides and e_w^2
/// the squared error of a lone weight.
/// Cost: size^3 / 3 fused multiply-adds and 256 size bytes a thread
[[nodiscard]] std::vector<double> noise_gain(const CurvatureFactor& factor);

}  // namespace lmq
