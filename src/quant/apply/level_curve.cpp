#include "lmq/quant/level_curve.hpp"

#include <algorithm>
#include <cmath>

#include "lmq/base/error.hpp"
#include "lmq/kernels/rate_cells.hpp"

namespace lmq {
namespace {

constexpr std::size_t kManyCounts = 64;  // from so many on, a pass over all is the quicker way

double entropy_of(std::span<const double> counts) {
  double total = 0, sum = 0;
  for (const double n : counts) total += n;
  for (const double n : counts)
    if (n > 0) sum += n * plain_log2(total / n);
  return total > 0 ? sum / total : 0;
}

QuantizerOptions options_for(const QuantizerEntry& method, std::span<const OptionValue> values, std::size_t levels) {
  QuantizerOptions options{levels, {values.begin(), values.end()}};
  if (values.empty())
    for (const MethodOption& known : method.options) options.values.push_back(known.fallback);
  if (method.complete) method.complete(options, true);
  return options;
}

}  // namespace

double group_energy(const Group& group) noexcept {
  double sum = 0;
  for (std::size_t j = 0; j < group.size(); ++j)
    sum += group.mass[j] * (group.mean[j] * group.mean[j]) + group.scatter[j];
  return sum;
}

Group condensed(const Group& group, std::size_t most) {
  if (group.size() <= most || !group.layers.empty()) return group;
  double all = 0, below = 0;
  for (const double count : group.count) all += count;
  const double first = group.low.front(), range = double{group.high.back()} - first;
  Group out;
  out.minimum = group.minimum, out.maximum = group.maximum;
  double place = -1;  // of the bin that is being filled
  for (std::size_t j = 0; j < group.size(); ++j) {
    const bool zero = group.low[j] == 0 && group.high[j] == 0;
    const double near = range > 0 ? (double{group.low[j]} - first) / range : 0;
    const double next = std::floor(static_cast<double>(most) / 2 * (near + below / all));
    below += group.count[j];
    if (out.size() > 0 && next == place && !zero) {
      const double mass = out.mass.back() + group.mass[j], away = group.mean[j] - out.mean.back();
      out.scatter.back() += group.scatter[j] + out.mass.back() * group.mass[j] / mass * (away * away);
      out.mean.back() += group.mass[j] / mass * away;
      out.mass.back() = mass, out.count.back() += group.count[j], out.high.back() = group.high[j];
      continue;
    }
    place = zero ? -1 : next;
    out.low.push_back(group.low[j]), out.high.push_back(group.high[j]), out.mean.push_back(group.mean[j]);
    out.count.push_back(group.count[j]), out.mass.push_back(group.mass[j]), out.scatter.push_back(group.scatter[j]);
  }
  return out;
}

Group bins_as_values(const Group& group) {
  Group values = group;
  for (std::size_t j = 0; j < group.size(); ++j) {
    const auto mean = static_cast<float>(group.mean[j]);
    values.low[j] = values.high[j] = std::clamp(mean, group.low[j], group.high[j]);
  }
  return values;
}

LevelPoint measure_codebook(const Group& group, const Codebook& codebook, Rounding rounding) {
  const auto levels = codebook.levels();
  const auto cuts = codebook.cuts();
  const auto order = codebook.order();
  const bool by_cuts = (rounding == Rounding::cuts && !cuts.empty()) || !order.empty();
  LevelPoint point;
  point.levels = levels.size();
  std::vector<double> counts(levels.size(), 0.0);
  std::size_t k = 0;  // ascends with the points
  for (std::size_t j = 0; j < group.size(); ++j) {
    const double w = group.mean[j], mass = group.mass[j];
    point.squared_error += group.scatter[j];
    if (rounding == Rounding::stochastic && levels.size() > 1) {
      while (k + 2 < levels.size() && w >= double{levels[k + 1]}) ++k;
      const double low = levels[k], high = levels[k + 1], part = std::clamp((w - low) / (high - low), 0.0, 1.0);
      point.squared_error += mass * ((1 - part) * ((w - low) * (w - low)) + part * ((w - high) * (w - high)));
      counts[k] += group.count[j] * (1 - part);
      counts[k + 1] += group.count[j] * part;
      continue;
    }
    if (by_cuts)
      while (k < cuts.size() && double{cuts[k]} <= w) ++k;
    else
      while (k + 1 < levels.size() && double{levels[k + 1]} - w < w - double{levels[k]}) ++k;
    const std::size_t code = order.empty() ? k : order[k];
    const double e = w - double{levels[code]};
    point.squared_error += mass * (e * e);
    counts[code] += group.count[j];
  }
  point.entropy_bits = entropy_of(counts);
  return point;
}

std::vector<LevelPoint> level_curve(const Group& group, const QuantizerEntry& method,
                                    std::span<const OptionValue> values, std::span<const std::size_t> wanted) {
  if (wanted.empty()) return {};
  const Group points = bins_as_values(group);
  std::vector<Codebook> all;  // [K] of K levels
  if (values.empty() && method.all && wanted.size() >= kManyCounts) all = method.all(points, wanted.back());
  std::vector<LevelPoint> curve;
  for (const std::size_t levels : wanted) {
    try {
      const QuantizerOptions options = options_for(method, values, levels);
      if (options.levels != levels) continue;  // the method prescribes another number
      const auto quantizer = method.make(options);
      if (quantizer->traits().sees == Sees::layer) return {};
      const Codebook book = all.empty() ? quantizer->fit(points).codebook : all[std::min(levels, all.size() - 1)];
      curve.push_back(measure_codebook(points, book, quantizer->traits().rounding));
      curve.back().wanted = levels;
    } catch (const Error& error) {
      if (error.code != Errc::usage) throw;
    }
  }
  return curve;
}

}  // namespace lmq
