#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lmq/base/exact_sum.hpp"

namespace lmq {

/// Values between `low` and `high` (both inclusive) of which only sums are known; one value when low == high.
struct ValueBin {
  double low = 0, high = 0;
  double mass = 0;    ///< sum of weights, >= 0
  double pivot = 0;   ///< what the next two are taken about
  double first = 0;   ///< sum of weight * (value - pivot)
  double second = 0;  ///< sum of weight * (value - pivot)^2
};

/// Weighted values on a line as the solvers of stochastic levels see them: places where a level may lie (edges), with
/// the sums of everything before them. A single value is one edge; a bin has an edge at either end. The variance that
/// unbiased rounding to levels a < b adds is
///   C(a, b) = sum over a < x < b of w (b - x)(x - a),
/// known exactly for edges, whatever lies inside the bins; values at a or b add nothing.
class LevelSums {
 public:
  void clear();
  /// Bins come in ascending order and touch at most in their ends.
  void add(const ValueBin& bin);
  /// Call once after the last add: centred sums for `at`.
  void finish();

  [[nodiscard]] std::size_t edges() const noexcept { return x_.size(); }
  [[nodiscard]] double x(std::size_t edge) const noexcept { return x_[edge]; }
  /// The bin (by order of add) whose inside lies between this edge and the next, or -1.
  [[nodiscard]] std::int64_t bin_after(std::size_t edge) const noexcept { return bin_after_[edge]; }
  [[nodiscard]] bool resolved() const noexcept { return resolved_; }

  /// C of two edges, first <= last; accurate to about 1e-15 of sum w (x - x(first))^2 inside.
  [[nodiscard]] double cost(std::size_t first, std::size_t last) const noexcept;
  /// Sum of C between neighbours of an ascending path.
  [[nodiscard]] double cost_of(std::span<const std::uint32_t> path) const noexcept;
  /// The edge between a and b that minimises cost(a, m) + cost(m, b). a < b.
  [[nodiscard]] std::size_t middle(std::size_t a, std::size_t b) const noexcept;

  /// Coordinates in which C(k, j) = (H_j - H_k) + x_j P_k - x_k P_j; they depend on an origin, C does not.
  struct At {
    double x, P, H;
  };
  /// About the mean of everything: quick; errors are about noise().
  [[nodiscard]] At at(std::size_t edge) const noexcept { return {gx_[edge], gP_[edge], gH_[edge]}; }
  /// About the edge `origin`: exact to the last digits for edges near it.
  [[nodiscard]] At at(std::size_t edge, std::size_t origin) const noexcept;
  /// Rounding of C from `at(edge)`.
  [[nodiscard]] double noise() const noexcept { return noise_; }

 private:
  void push(double x);

  std::vector<double> x_;
  std::vector<ExactSum> A_, B_, G_;  // sums of w, w x, w x^2 before the edge; a value at the edge may be in or not
  std::vector<std::int64_t> bin_after_;
  ExactSum a_, b_, g_;  // of all that was added
  std::int64_t bins_ = 0;
  bool resolved_ = true;
  std::vector<double> gx_, gP_, gH_;
  double noise_ = 0;
};

}  // namespace lmq
