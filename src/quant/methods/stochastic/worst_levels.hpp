#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace lmq {

/// Levels that minimise the largest variance of unbiased rounding, max over the values of (b - x)(x - a) with a <= x <=
/// b neighbouring levels. They may lie anywhere.
///
/// For a bound v on the variance the farthest level after q is next(q) = min over values w > q of w + v / (w - q): a
/// convex function of w, least at q + sqrt(v), so only the two values around it count. next rises with q, so going as
/// far as possible is best, and the least v for which s levels reach the end is found by halving the floats between 0
/// and (range / (2 (s - 1)))^2, the equidistant grid.
///
/// Of a bin (values between low and high, at least one) next is known between two bounds, and so is v.
class WorstLevels {
 public:
  struct Result {
    std::vector<double> levels;            ///< first = minimum, last = maximum; at most as many as asked for
    double variance = 0;                   ///< no value's variance exceeds it with these levels
    double bound = 0;                      ///< no levels do better than this
    std::vector<std::uint32_t> open_bins;  ///< bins whose values decide between the two; ascending
  };
  /// low, high  [bins] ascending; the first value is low.front(), the last high.back()
  WorstLevels(std::span<const double> low, std::span<const double> high) : low_(low), high_(high) {}
  /// levels >= 2. slack: content with variance <= bound * (1 + slack).
  [[nodiscard]] Result solve(std::size_t levels, double slack) const;

 private:
  [[nodiscard]] double next(double q, double v, bool optimistic) const;
  [[nodiscard]] std::vector<double> reach(double v, std::size_t most, bool optimistic) const;
  [[nodiscard]] double least(std::size_t levels, bool optimistic) const;
  void touched(std::span<const double> levels, double v, std::vector<std::uint32_t>& bins) const;

  std::span<const double> low_, high_;
};

/// The same for values with weights: minimises max over i of weights[i] * variance. values ascending, weights > 0 (an
/// element of weight 0 costs nothing and may be left out; it must not lie outside). Cost O(n) per halving.
[[nodiscard]] std::vector<double> weighted_worst_levels(std::span<const double> values, std::span<const double> weights,
                                                        std::size_t levels, double& variance);

}  // namespace lmq
