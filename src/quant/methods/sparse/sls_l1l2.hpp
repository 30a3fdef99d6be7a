#pragma once
#include "sls_l1.hpp"

namespace lmq {

/// What the second penalty squares: alpha_k (the paper's letters), or the jump Delta_k = d_k alpha_k, which does not
/// depend on the gaps between the values.
enum class SecondPenalty : std::uint8_t { alpha, jump };

/// Exact solver of   min 1/2 sum a (u - x)^2 + lambda1 sum |alpha_k| + lambda2 sum alpha_k^2,   k >= 2 (the offset is
/// free), lambda2 of any sign. lambda2 > 0: the minimiser ascends; its multipliers z_k = lambda1 / d_k + 2 mu_k
/// Delta_k, mu_k = lambda2 / d_k^2 (or lambda2), solve a tridiagonal system on the edges that jump; which these are is
/// found by semismooth Newton steps, a monotone and finite iteration because the matrix is an M-matrix. lambda2 < 0:
/// the problem is defined on ascending x; where it is convex, lambda2's part is linearised at the last solution and the
/// rest solved by pooling, again and again (convex-concave procedure). Holds its scratch.
class SparseL1L2 {
 public:
  explicit SparseL1L2(SecondPenalty penalty = SecondPenalty::alpha) : penalty_(penalty) {}
  void set_penalty(SecondPenalty penalty) noexcept { penalty_ = penalty; }

  /// The most that -lambda2 may be for a convex problem: 1 / (2 * largest eigenvalue of the inverse of its quadratic
  /// form), which is tridiagonal. Infinity for one point. O(m), about 50 passes.
  [[nodiscard]] double convex_limit(SparseData data) const;
  /// Ends of the cells of the solution; lambda1 >= 0, lambda2 > -convex_limit.
  [[nodiscard]] const CellEnds& solve(SparseData data, double lambda1, double lambda2);
  /// The least lambda1, to about 1e-12 of it, that leaves at most `levels` levels, and its cells in ends().
  double lambda_for(SparseData data, double lambda2, std::size_t levels);
  [[nodiscard]] const CellEnds& ends() const noexcept { return ends_; }
  /// x of the last solution [m].
  [[nodiscard]] std::span<const double> solution() const noexcept { return x_; }
  /// The objective at ascending x.
  [[nodiscard]] double objective(SparseData data, std::span<const double> x, double lambda1, double lambda2) const;
  /// Newton or convex-concave steps of the last solve.
  [[nodiscard]] std::size_t steps() const noexcept { return steps_; }

 private:
  void newton(SparseData data, double lambda1, double lambda2);
  void multipliers(SparseData data, double lambda1, double lambda2);
  void levels_from_jumps(SparseData data, double lambda1, double lambda2);
  void convex_concave(SparseData data, double lambda1, double lambda2);
  [[nodiscard]] double scale(double gap) const { return penalty_ == SecondPenalty::alpha ? gap : 1.0; }

  SecondPenalty penalty_;
  SparseL1 l1_;
  std::vector<bool> jumps_;                // S: edges that jump
  std::vector<double> pivot_, right_, z_;  // of the tridiagonal system
  std::vector<double> slope_, x_;
  CellEnds ends_;
  std::size_t steps_ = 0;
};

}  // namespace lmq
