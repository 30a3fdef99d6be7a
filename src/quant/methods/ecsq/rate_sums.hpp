#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/zero_rule.hpp"
#include "lmq/kernels/rate_cells.hpp"
#include "lmq/quant/group.hpp"

namespace lmq {

/// A group as points on a line with running sums: all that the price of a cell of an interval code needs.
/// Edge e (0..points) lies before point e. Sums are compensated, from the middle outwards, about `centre`.
struct RateSums {
  std::size_t points = 0;
  std::vector<double> n, a, b, c;  ///< [points + 1] weights, importance, importance * (v - centre), * (v - centre)^2
  std::vector<double> value;       ///< [points] mean of the point's weights
  std::vector<float> low;          ///< [points] first value that may lie in it: where a cell can begin
  double centre = 0;
  double count = 0, inverse_count = 0;
  double mass = 0;
  double energy = 0;     ///< squared error of a single level at the mean, scatter inside the points included
  std::size_t zero = 0;  ///< the point whose cell has the level 0, or `points`
  bool even = true;      ///< importance per weight is the same in all points

  explicit RateSums(const Group& group, ZeroRule rule = ZeroRule::automatic);
  /// The line of a part of the weights, with the centre of the whole and without a pinned zero.
  RateSums(const Group& group, double centre);
  [[nodiscard]] CellColumns columns() const noexcept { return {n.data(), a.data(), b.data(), c.data()}; }
  [[nodiscard]] bool pins(std::size_t i, std::size_t j) const noexcept { return i <= zero && zero < j; }
  [[nodiscard]] double level(std::size_t i, std::size_t j) const noexcept;
  /// Squared error per importance of a single level: what `--lambda` is relative to.
  [[nodiscard]] double variance() const noexcept { return energy / mass; }

 private:
  void add_up(const Group& group, std::size_t middle);
};

/// An interval code: cells of whole points, each with its best level.
struct IntervalCode {
  std::vector<std::uint32_t> ends;  ///< 0 = ends[0] < ... < ends[K] = points
  double distortion = 0;            ///< sum of importance * error^2
  double bits = 0;                  ///< entropy of the codes, all weights together
  [[nodiscard]] std::size_t cells() const noexcept { return ends.empty() ? 0 : ends.size() - 1; }
  [[nodiscard]] double price(double lambda) const noexcept { return distortion + lambda * bits; }
};
[[nodiscard]] IntervalCode interval_code(const RateSums& line, std::vector<std::uint32_t> ends);
/// Levels of the cells, ascending.
[[nodiscard]] std::vector<double> interval_levels(const RateSums& line, std::span<const std::uint32_t> ends);

}  // namespace lmq
