#include "lmq/quant/rate.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <string>

#include "core/priced_levels.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/kernels/assign.hpp"
#include "lmq/kernels/rate_cells.hpp"

namespace lmq {
namespace {

constexpr std::size_t kMaxLevels = 256;  // of a codebook
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

const QuantizerEntry& entry_of(std::uint16_t method) {
  const QuantizerEntry* entry = find_quantizer(method);
  if (entry == nullptr) fail(Errc::internal, "a rate curve of method id " + std::to_string(method));
  return *entry;
}

// Numbers of levels that are tried for methods without a slope.
std::vector<std::size_t> level_ladder(RateCount count) {
  std::vector<std::size_t> levels;
  if (count != RateCount::entropy) {
    for (std::size_t k = 2; k <= kMaxLevels; k *= 2) levels.push_back(k);
    return levels;
  }
  for (std::size_t k = 2; k <= kMaxLevels; k += std::max<std::size_t>(1, std::bit_floor(k) / 8)) levels.push_back(k);
  return levels;
}

// With so many levels; 0 levels where the method refuses that number.
QuantizerOptions with_levels(QuantizerOptions options, const QuantizerEntry& entry, std::size_t levels) {
  options.levels = levels;
  try {
    if (entry.complete) entry.complete(options, true);
  } catch (const Error& error) {
    if (error.code != Errc::usage) throw;
    options.levels = 0;
  }
  return options;
}

/// Adds what a group's bins give to the levels that `code_of` finds for their means.
template <class CodeOf>
void add_bins(const Group& group, std::span<const float> levels, const CodeOf& code_of, std::vector<double>& weights,
              RatePoint& point) {
  for (std::size_t j = 0; j < group.size(); ++j) {
    const std::size_t code = code_of(group.mean[j]);
    const double error = group.mean[j] - double{levels[code]};
    weights[code] += group.count[j];
    point.distortion += group.mass[j] * (error * error) + group.scatter[j];
  }
}

/// The same on the average over draws between two neighbours a and b whose mean is the weight v: (v - a) (b - v), of a bin
/// about its mean less its scatter.
void add_draws(const Group& group, std::span<const float> levels, std::vector<double>& weights, RatePoint& point) {
  std::size_t k = 0;
  for (std::size_t j = 0; j < group.size(); ++j) {
    const double mean = group.mean[j], mass = group.mass[j];
    while (k + 2 < levels.size() && mean >= double{levels[k + 1]}) ++k;
    const double low = levels[k], high = levels[k + 1], part = std::clamp((mean - low) / (high - low), 0.0, 1.0);
    const double away = mean < low ? low - mean : mean - high;  // > 0: beyond all levels
    point.distortion += away > 0 ? mass * (away * away) + group.scatter[j]
                                 : std::max(0.0, mass * ((mean - low) * (high - mean)) - group.scatter[j]);
    weights[k] += group.count[j] * (1 - part);
    weights[k + 1] += group.count[j] * part;
  }
}

/// By value and importance.
void add_layers(const Group& group, const Codebook& codebook, std::vector<double>& weights, RatePoint& point) {
  const std::vector<double> levels(codebook.levels().begin(), codebook.levels().end());
  PricedCuts cuts;
  for (const GroupLayer& layer : group.layers) {
    priced_cuts(levels, codebook.prices(), layer.importance, cuts);
    std::size_t interval = 0;
    const auto code_of = [&](double mean) {
      while (interval < cuts.cuts.size() && double{cuts.cuts[interval]} <= mean) ++interval;
      return cuts.order[interval];
    };
    add_bins(layer.group, codebook.levels(), code_of, weights, point);
  }
}

}  // namespace

RatePoint rate_of(const Group& group, const Codebook& codebook, RateCount count, Rounding rounding) {
  const auto levels = codebook.levels();
  std::vector<float> nearest(levels.size() - 1);
  std::span<const float> cuts = codebook.cuts();
  if (cuts.empty() && codebook.order().empty()) {
    level_boundaries(levels, nearest);
    cuts = nearest;
  }
  std::vector<double> weights(levels.size(), 0.0);
  RatePoint point{kNone, 0, 0, levels.size()};
  std::size_t interval = 0;
  const auto code_of = [&](double mean) -> std::size_t {
    while (interval < cuts.size() && double{cuts[interval]} <= mean) ++interval;
    return codebook.order().empty() ? interval : codebook.order()[interval];
  };
  if (rounding == Rounding::stochastic && levels.size() > 1)
    add_draws(group, levels, weights, point);
  else if (!codebook.prices().empty() && !group.layers.empty())
    add_layers(group, codebook, weights, point);
  else
    add_bins(group, levels, code_of, weights, point);
  double all = 0;
  for (const double weight : weights) all += weight;
  if (count == RateCount::fixed_width) {
    point.bits = all * static_cast<double>(std::bit_width(levels.size() - 1));
    return point;
  }
  for (const double weight : weights)
    if (weight > 0) point.bits -= weight * plain_log2(weight / all);
  return point;
}

std::size_t fewest_levels(std::uint16_t method, const QuantizerOptions& options, RateCount count) {
  return entry_of(method).at_slope != nullptr ? 1 : level_options(method, options, count).front().levels;
}

std::vector<QuantizerOptions> level_options(std::uint16_t method, const QuantizerOptions& options, RateCount count) {
  const QuantizerEntry& entry = entry_of(method);
  std::vector<QuantizerOptions> all;
  for (const std::size_t levels : level_ladder(count))
    if (QuantizerOptions wanted = with_levels(options, entry, levels); wanted.levels == levels)
      all.push_back(std::move(wanted));
  if (all.empty()) all.push_back(options);  // they fix the number
  return all;
}

bool is_coarse_count(std::size_t levels) noexcept {
  return std::has_single_bit(levels) || (levels % 3 == 0 && std::has_single_bit(levels / 3));
}

void fill_between(std::span<const std::size_t> known, std::span<const double> places, std::span<RatePoint> points) {
  for (std::size_t k = 1; k < known.size(); ++k) {
    const RatePoint &first = points[known[k - 1]], &last = points[known[k]];
    const double begin = places[known[k - 1]], width = places[known[k]] - begin;
    for (std::size_t i = known[k - 1] + 1; i < known[k]; ++i) {
      const double part = (places[i] - begin) / width;
      points[i].bits = first.bits + part * (last.bits - first.bits);
      points[i].distortion = first.distortion + part * (last.distortion - first.distortion);
      if (first.distortion > 0 && last.distortion > 0)
        points[i].distortion = first.distortion * plain_exp2(part * plain_log2(last.distortion / first.distortion));
    }
  }
}

std::vector<RatePoint> level_points(const std::vector<QuantizerOptions>& options, bool all,
                                    const std::function<RatePoint(const QuantizerOptions&)>& point_of) {
  std::vector<std::size_t> known;
  for (std::size_t i = 0; i < options.size(); ++i)
    if (all || i == 0 || i + 1 == options.size() || is_coarse_count(options[i].levels)) known.push_back(i);
  std::vector<RatePoint> points(options.size());
  parallel_for(known.size(), [&](std::size_t k) { points[known[k]] = point_of(options[known[k]]); });
  std::vector<double> places;
  for (const QuantizerOptions& one : options) places.push_back(plain_log2(static_cast<double>(one.levels)));
  // None above the first that has more levels than there are values for.
  const auto full = std::ranges::find_if(known, [&](std::size_t i) { return points[i].levels < options[i].levels; });
  if (full != known.end()) {
    known.erase(full + 1, known.end());
    points.resize(known.back() + 1);
    places[known.back()] = std::max(plain_log2(static_cast<double>(points.back().levels)),
                                    known.size() > 1 ? places[known[known.size() - 2]] : 0.0);
  }
  fill_between(known, places, points);
  for (std::size_t i = 0; i < points.size(); ++i)
    if (!std::ranges::binary_search(known, i)) points[i].lambda = kNone, points[i].levels = options[i].levels;
  if (full != known.end())
    std::erase_if(points, [&](const RatePoint& point) { return point.levels > points.back().levels; });
  return points;
}

std::vector<RatePoint> rate_curve(const Group& group, std::uint16_t method, const QuantizerOptions& options,
                                  std::span<const double> lambdas, RateCount count) {
  const QuantizerEntry& entry = entry_of(method);
  if (entry.at_slope != nullptr) return entry.make(options)->curve(group, lambdas);
  // A method that has a pass over all numbers of levels is quick with one, too.
  return level_points(level_options(method, options, count), entry.all != nullptr, [&](const QuantizerOptions& wanted) {
    const auto quantizer = entry.make(wanted);
    return rate_of(group, quantizer->approximate_fit(group), count, quantizer->traits().rounding);
  });
}

}  // namespace lmq
