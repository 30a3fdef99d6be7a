#include "lmq/quant/stochastic.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "level_fit.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/random.hpp"
#include "lmq/kernels/sort_floats.hpp"
#include "lmq/kernels/stochastic.hpp"
#include "lmq/quant/value_histogram.hpp"
#include "worst_levels.hpp"

namespace lmq {
namespace {

constexpr std::size_t kFew = std::size_t{1} << 16;  // so few values are sorted

void check(std::span<const float> values, std::span<const float> weights, const LevelChoice& choice) {
  if (choice.levels < 1 || choice.levels > 256)
    fail(Errc::usage, "stochastic levels: " + std::to_string(choice.levels) + " levels, expected 1 to 256");
  if (!(choice.slack >= 0)) fail(Errc::usage, "stochastic levels: a slack below 0");
  if (choice.grid == 1) fail(Errc::usage, "stochastic levels: a grid of 1 cell, expected 0 or at least 2");
  if (!weights.empty() && weights.size() != values.size())
    fail(Errc::usage, "stochastic levels: " + std::to_string(weights.size()) + " weights for " +
                          std::to_string(values.size()) + " values");
  if (values.empty()) fail(Errc::malformed, "stochastic levels: no values");
  for (std::size_t i = 0; i < values.size(); ++i)
    if (!std::isfinite(values[i]))
      fail(Errc::malformed, "stochastic levels: value " + std::to_string(i) + " is not finite");
  for (std::size_t i = 0; i < weights.size(); ++i)
    if (!std::isfinite(weights[i]) || weights[i] < 0)
      fail(Errc::malformed, "stochastic levels: weight " + std::to_string(i) + " is not finite, or negative");
}

/// Distinct values with the sum of their weights.
Group few_values(std::span<const float> values, std::span<const float> weights) {
  std::vector<float> sorted(values.size()), moved(weights.size());
  SortScratch scratch;
  sort_floats(values, weights, sorted, moved, scratch);
  Group group;
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    const double mass = weights.empty() ? 1.0 : double{moved[i]};
    if (i > 0 && sorted[i] == sorted[i - 1]) {
      group.count.back() += 1, group.mass.back() += mass;
      continue;
    }
    group.low.push_back(sorted[i]), group.high.push_back(sorted[i]), group.mean.push_back(sorted[i]);
    group.count.push_back(1), group.mass.push_back(mass), group.scatter.push_back(0);
  }
  group.minimum = sorted.front(), group.maximum = sorted.back();
  return group;
}

/// Bins of equal exponent and leading bits, opened where a level may lie.
StochasticLevels many_values(std::span<const float> values, std::span<const float> weights, const LevelChoice& choice) {
  const TensorView view{DType::f32, std::as_bytes(values), values.size()};
  Importance importance;
  if (!weights.empty()) {
    const float largest = *std::ranges::max_element(weights);
    importance.kind = Importance::Kind::weights;
    importance.values = weights;
    importance.quantum = importance_quantum(largest, values.size());
  }
  ValueHistogram histogram = ValueHistogram::of(view, importance, {});
  for (;;) {
    const Group group = histogram.group(importance.quantum);
    LevelFit fit = fit_levels(group, choice);
    const auto ranges = ranges_of_bins(group, fit.open_bins);
    if (ranges.empty()) return std::move(fit.levels);
    histogram.refine(ValueHistogram::of(view, importance, ranges), ranges);
  }
}

StochasticLevels weighted_largest(std::span<const float> values, std::span<const float> weights,
                                  const LevelChoice& choice) {
  std::vector<float> sorted(values.size()), moved(weights.size());
  SortScratch scratch;
  sort_floats(values, weights, sorted, moved, scratch);
  std::vector<double> x, w;
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    if (i > 0 && sorted[i] == sorted[i - 1])
      w.back() = std::max(w.back(), double{moved[i]});
    else
      x.push_back(sorted[i]), w.push_back(moved[i]);
  }
  StochasticLevels found;
  for (const double level : weighted_worst_levels(x, w, choice.levels, found.cost))
    if (const auto next = static_cast<float>(level) + 0.0f; found.levels.empty() || next > found.levels.back())
      found.levels.push_back(next);
  found.bound = found.cost;
  return found;
}

/// Calls visit(i, variance) for every value.
template <class Visit>
void each_variance(std::span<const float> values, std::span<const float> levels, const Visit& visit) {
  if (levels.empty()) fail(Errc::usage, "variance of rounding: no levels");
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto above = std::ranges::upper_bound(levels, values[i]);
    const bool outside = above == levels.begin() || above == levels.end();
    visit(i, outside ? 0.0 : (double{*above} - values[i]) * (double{values[i]} - above[-1]));
  }
}

}  // namespace

StochasticLevels stochastic_levels(std::span<const float> values, std::span<const float> weights,
                                   const LevelChoice& choice) {
  check(values, weights, choice);
  if (std::ranges::all_of(weights, [](float w) { return w == 0; })) weights = {};
  const auto [low, high] = std::ranges::minmax(values);
  if (low == high) return {{low + 0.0f}, 0, 0};
  if (choice.levels == 1) fail(Errc::usage, "stochastic levels: one level cannot round different values without bias");
  if (choice.objective == LevelObjective::largest_variance && !weights.empty())
    return weighted_largest(values, weights, choice);
  if (values.size() > kFew) return many_values(values, weights, choice);
  return fit_levels(few_values(values, weights), choice).levels;
}

// More than 5 parameters: three are the key of the draws.
void round_stochastically(std::span<const float> values, std::span<const float> levels, std::uint64_t seed,
                          std::uint64_t subject, std::uint64_t first, std::span<Code> codes) {
  if (codes.size() != values.size())
    fail(Errc::usage, "stochastic rounding: " + std::to_string(codes.size()) + " codes for " +
                          std::to_string(values.size()) + " values");
  if (levels.empty() || levels.size() > 256 || !std::ranges::is_sorted(levels))
    fail(Errc::usage, "stochastic rounding: levels must ascend, 1 to 256 of them");
  assign_stochastic(DType::f32, std::as_bytes(values), levels, draw_key(seed, subject), first, codes);
}

double total_variance(std::span<const float> values, std::span<const float> weights, std::span<const float> levels) {
  double sum = 0;
  each_variance(values, levels, [&](std::size_t i, double v) { sum += weights.empty() ? v : weights[i] * v; });
  return sum;
}

double largest_variance(std::span<const float> values, std::span<const float> weights, std::span<const float> levels) {
  double most = 0;
  each_variance(values, levels,
                [&](std::size_t i, double v) { most = std::max(most, weights.empty() ? v : weights[i] * v); });
  return most;
}

}  // namespace lmq
