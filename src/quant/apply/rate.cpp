#include "lmq/quant/rate.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <string>

#include "core/priced_levels.hpp"
#include "lmq/base/error.hpp"
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

RatePoint rate_of(const Group& group, const Codebook& codebook, RateCount count) {
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
  if (!codebook.prices().empty() && !group.layers.empty())
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
  const QuantizerEntry& entry = entry_of(method);
  if (entry.at_slope != nullptr) return 1;
  for (const std::size_t levels : level_ladder(count))
    if (with_levels(options, entry, levels).levels == levels) return levels;
  return options.levels;
}

std::vector<RatePoint> rate_curve(const Group& group, std::uint16_t method, const QuantizerOptions& options,
                                  std::span<const double> lambdas, RateCount count) {
  const QuantizerEntry& entry = entry_of(method);
  if (entry.at_slope != nullptr) return entry.make(options)->curve(group, lambdas);
  std::vector<RatePoint> curve;
  for (const std::size_t levels : level_ladder(count)) {
    const QuantizerOptions wanted = with_levels(options, entry, levels);
    if (wanted.levels != levels) continue;  // the method's options fix the number
    curve.push_back(rate_of(group, entry.make(wanted)->approximate_fit(group), count));
    if (curve.back().levels < levels) break;  // more levels than values
  }
  if (curve.empty()) curve.push_back(rate_of(group, entry.make(options)->approximate_fit(group), count));
  return curve;
}

}  // namespace lmq
