#include "worst_levels.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace lmq {
namespace {
constexpr double kInfinity = std::numeric_limits<double>::infinity();

double farthest(double q, double v, double w) { return w + v / (w - q); }

/// The least v in [0, most] for which `serves`, which holds from some v on and for `most`: to the last bit.
template <class Serves>
double least_that_serves(double most, const Serves& serves) {
  if (serves(0.0)) return 0;
  std::uint64_t bad = 0, good = std::bit_cast<std::uint64_t>(most);  // non-negative doubles order like their bits
  while (good - bad > 1) {
    const std::uint64_t middle = bad + (good - bad) / 2;
    (serves(std::bit_cast<double>(middle)) ? good : bad) = middle;
  }
  return std::bit_cast<double>(good);
}

double grid_variance(double range, std::size_t levels) {
  const double step = range / static_cast<double>(levels - 1);
  return step * step / 4 * (1 + 1e-12);
}
}  // namespace

// optimistic: at most so far whatever the bins hold; else at least so far.
double WorstLevels::next(double q, double v, bool optimistic) const {
  const double target = q + std::sqrt(v);
  const auto bin_from = [&](double x, bool beyond) {
    return static_cast<std::size_t>((beyond ? std::ranges::upper_bound(high_, x) : std::ranges::lower_bound(high_, x)) -
                                    high_.begin());
  };
  const std::size_t least = bin_from(q, true), at = std::max(bin_from(target, false), least);
  double result = high_.back();
  for (std::size_t bin = at > least ? at - 1 : at; bin < std::min(at + 2, low_.size()); ++bin) {
    const bool sure = low_[bin] > q;  // all its values lie behind q
    if (optimistic && !sure) continue;
    const double low = sure ? low_[bin] : q, high = high_[bin];
    double reach;
    if (optimistic)
      reach = std::max(farthest(q, v, low), farthest(q, v, high));
    else if (low <= target && target <= high)
      reach = low == high ? farthest(q, v, low) : q + 2 * std::sqrt(v);
    else
      reach = high < target ? farthest(q, v, high) : farthest(q, v, low);
    result = std::min(result, reach);
  }
  return std::max(result, std::nextafter(q, kInfinity));
}

std::vector<double> WorstLevels::reach(double v, std::size_t most, bool optimistic) const {
  std::vector<double> levels{low_.front()};
  while (levels.back() < high_.back() && levels.size() < most) levels.push_back(next(levels.back(), v, optimistic));
  return levels;
}

double WorstLevels::least(std::size_t levels, bool optimistic) const {
  return least_that_serves(grid_variance(high_.back() - low_.front(), levels),
                           [&](double v) { return reach(v, levels, optimistic).back() >= high_.back(); });
}

// Unresolved bins that decide how far the levels reach.
void WorstLevels::touched(std::span<const double> levels, double v, std::vector<std::uint32_t>& bins) const {
  for (const double q : levels) {
    const double target = q + std::sqrt(v);
    const auto at = static_cast<std::size_t>(std::ranges::lower_bound(high_, target) - high_.begin());
    for (std::size_t bin = at > 0 ? at - 1 : 0; bin < std::min(at + 2, low_.size()); ++bin)
      if (low_[bin] < high_[bin] && high_[bin] > q) bins.push_back(static_cast<std::uint32_t>(bin));
  }
}

WorstLevels::Result WorstLevels::solve(std::size_t levels, double slack) const {
  Result result;
  if (low_.front() == high_.back()) return {{low_.front()}, 0, 0, {}};
  result.variance = least(levels, false);
  result.bound = std::min(least(levels, true), result.variance);
  result.levels = reach(result.variance, levels, false);
  result.levels.back() = high_.back();
  if (result.variance <= result.bound * (1 + std::max(slack, 1e-12))) return result;
  touched(result.levels, result.variance, result.open_bins);
  touched(reach(result.bound, levels, true), result.bound, result.open_bins);
  std::ranges::sort(result.open_bins);
  result.open_bins.erase(std::unique(result.open_bins.begin(), result.open_bins.end()), result.open_bins.end());
  return result;
}

std::vector<double> weighted_worst_levels(std::span<const double> values, std::span<const double> weights,
                                          std::size_t levels, double& variance) {
  const auto reach = [&](double v) {
    std::vector<double> found{values.front()};
    for (std::size_t first = 0; found.back() < values.back() && found.size() < levels;) {
      const double q = found.back();
      while (first < values.size() && values[first] <= q) ++first;
      double far = values.back();
      for (std::size_t i = first; i < values.size() && values[i] < far; ++i)
        if (weights[i] > 0) far = std::min(far, farthest(q, v / weights[i], values[i]));
      found.push_back(std::max(far, std::nextafter(q, kInfinity)));
    }
    return found;
  };
  const double heaviest = *std::ranges::max_element(weights);
  variance = least_that_serves(heaviest * grid_variance(values.back() - values.front(), levels),
                               [&](double v) { return reach(v).back() >= values.back(); });
  std::vector<double> found = reach(variance);
  found.back() = values.back();
  return found;
}

}  // namespace lmq
