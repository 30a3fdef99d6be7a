#include "rate_sums.hpp"

#include <algorithm>
#include <cmath>

#include "lmq/base/error.hpp"
#include "lmq/base/running_sum.hpp"

namespace lmq {
namespace {

// Running sums of one column over the points, from the edge `middle` outwards: far outliers meet only what is behind.
template <class Term>
std::vector<double> running(std::size_t points, std::size_t middle, const Term& term) {
  std::vector<double> sums(points + 1, 0.0);
  Running right, left;
  for (std::size_t k = middle; k < points; ++k) right.add(term(k)), sums[k + 1] = right.total();
  for (std::size_t k = middle; k-- > 0;) left.add(term(k)), sums[k] = -left.total();
  return sums;
}

}  // namespace

RateSums::RateSums(const Group& group, ZeroRule rule) : points(group.size()), value(group.mean), low(group.low) {
  if (points == 0) fail(Errc::internal, "a line of no points");
  zero = pinned_zero(group, rule);
  centre = zero < points ? 0.0 : value[points / 2];
  add_up(group, zero < points ? zero : points / 2);
}

RateSums::RateSums(const Group& group, double middle)
    : points(group.size()), value(group.mean), low(group.low), centre(middle), zero(group.size()) {
  if (points == 0) fail(Errc::internal, "a line of no points");
  add_up(group, static_cast<std::size_t>(std::ranges::lower_bound(value, centre) - value.begin()));
}

void RateSums::add_up(const Group& group, std::size_t middle) {
  const auto offset = [&](std::size_t k) { return value[k] - centre; };
  n.assign(points + 1, 0.0);
  for (std::size_t k = 0; k < points; ++k) n[k + 1] = n[k] + group.count[k];
  a = running(points, middle, [&](std::size_t k) { return group.mass[k]; });
  b = running(points, middle, [&](std::size_t k) { return group.mass[k] * offset(k); });
  c = running(points, middle, [&](std::size_t k) { return group.mass[k] * offset(k) * offset(k) + group.scatter[k]; });
  count = n[points];
  inverse_count = 1 / count;
  mass = a[points] - a[0];
  energy = cell_error(columns(), 0, points, false);
  const double ratio = group.mass[0] / group.count[0];
  for (std::size_t k = 1; k < points && even; ++k)
    even = std::fabs(group.mass[k] - ratio * group.count[k]) <= 1e-9 * group.mass[k];
}

double RateSums::level(std::size_t i, std::size_t j) const noexcept {
  if (pins(i, j)) return 0;
  if (j == i + 1) return value[i];
  const double mean = (b[j] - b[i]) / (a[j] - a[i]) + centre;
  return std::clamp(mean, value[i], value[j - 1]);
}

IntervalCode interval_code(const RateSums& line, std::vector<std::uint32_t> ends) {
  IntervalCode code;
  const CellColumns edges = line.columns();
  for (std::size_t t = 1; t < ends.size(); ++t) {
    code.distortion += cell_error(edges, ends[t - 1], ends[t], line.pins(ends[t - 1], ends[t]));
    code.bits += cell_bits(edges, line.inverse_count, ends[t - 1], ends[t]);
  }
  code.ends = std::move(ends);
  return code;
}

std::vector<double> interval_levels(const RateSums& line, std::span<const std::uint32_t> ends) {
  std::vector<double> levels;
  for (std::size_t t = 1; t < ends.size(); ++t) levels.push_back(line.level(ends[t - 1], ends[t]));
  return levels;
}

}  // namespace lmq
