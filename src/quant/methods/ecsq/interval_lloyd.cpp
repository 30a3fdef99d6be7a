#include "interval_lloyd.hpp"

#include <algorithm>
#include <limits>

#include "lmq/kernels/huffman.hpp"

namespace lmq {
namespace {

constexpr int kMaxRounds = 400;  // it ends long before, but for lines of many thousand points
constexpr unsigned kLongestWord = 32;

std::vector<double> lengths_in_form(const RateSums& line, std::span<const std::uint32_t> ends, LengthForm form) {
  std::vector<double> counts;
  for (std::size_t t = 1; t < ends.size(); ++t) counts.push_back(line.n[ends[t]] - line.n[ends[t - 1]]);
  return code_lengths(counts, form);
}

// V[l]: least price of the points so far when the last one has level l. O(points * levels).
std::vector<std::uint32_t> by_path(const RateSums& line, std::span<const double> levels, std::span<const double> bits,
                                   double lambda) {
  const std::size_t count = levels.size();
  std::vector<double> best(count, 0.0);
  std::vector<std::uint16_t> from(line.points * count);
  for (std::size_t k = 0; k < line.points; ++k) {
    const double mass = line.a[k + 1] - line.a[k], rate = lambda * (line.n[k + 1] - line.n[k]);
    double least = std::numeric_limits<double>::infinity();
    std::uint16_t at = 0;
    for (std::size_t l = 0; l < count; ++l) {
      if (best[l] < least) least = best[l], at = static_cast<std::uint16_t>(l);
      from[k * count + l] = at;
      const double error = line.value[k] - levels[l];
      best[l] = least + (mass * (error * error) + rate * bits[l]);
    }
  }
  std::vector<std::uint32_t> ends{static_cast<std::uint32_t>(line.points)};
  std::size_t level = static_cast<std::size_t>(std::ranges::min_element(best) - best.begin());
  for (std::size_t k = line.points; k-- > 1;) {
    const std::size_t before = from[k * count + level];
    if (before != level) ends.push_back(static_cast<std::uint32_t>(k));
    level = before;
  }
  ends.push_back(0);
  std::ranges::reverse(ends);
  return ends;
}

}  // namespace

std::vector<double> code_lengths(std::span<const double> counts, LengthForm form) {
  std::vector<double> bits;
  if (form == LengthForm::entropy) {
    double total = 0;
    for (const double count : counts) total += count;
    for (const double count : counts) bits.push_back(-plain_log2(count / total));
    return bits;
  }
  bits.assign(counts.size(), 0.0);
  if (counts.size() < 2) return bits;
  std::vector<std::uint64_t> whole(counts.begin(), counts.end());
  std::vector<std::uint8_t> lengths(counts.size());
  huffman_lengths(whole, kLongestWord, lengths);
  std::ranges::copy(lengths, bits.begin());
  return bits;
}

double bits_in_form(const RateSums& line, std::span<const std::uint32_t> ends, LengthForm form) {
  const auto lengths = lengths_in_form(line, ends, form);
  double bits = 0;
  for (std::size_t t = 0; t < lengths.size(); ++t) bits += lengths[t] * (line.n[ends[t + 1]] - line.n[ends[t]]);
  return bits;
}

// (v - c)^2 + bits * slope is v^2 plus a line in v for each level; their lower envelope.
std::vector<std::uint32_t> assign_by_envelope(const RateSums& line, std::span<const double> levels,
                                              std::span<const double> bits, double lambda) {
  const double slope = lambda * line.count / line.mass;
  const auto crossing = [&](std::size_t l, std::size_t r) {
    return (levels[l] + levels[r]) / 2 + slope * (bits[r] - bits[l]) / (2 * (levels[r] - levels[l]));
  };
  std::vector<std::size_t> hull;
  std::vector<double> from;  // where the hull's levels, but the first, take over
  for (std::size_t l = 0; l < levels.size(); ++l) {
    while (!from.empty() && crossing(hull.back(), l) <= from.back()) hull.pop_back(), from.pop_back();
    if (!hull.empty()) from.push_back(crossing(hull.back(), l));
    hull.push_back(l);
  }
  std::vector<std::uint32_t> ends{0};
  for (const double x : from) {
    const auto end = std::ranges::upper_bound(line.value, x) - line.value.begin();
    ends.push_back(std::max(static_cast<std::uint32_t>(end), ends.back()));
  }
  ends.push_back(static_cast<std::uint32_t>(line.points));
  ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
  return ends;
}

std::vector<std::uint32_t> assign_by_rate(const RateSums& line, std::span<const double> levels,
                                          std::span<const double> bits, double lambda) {
  return line.even ? assign_by_envelope(line, levels, bits, lambda) : by_path(line, levels, bits, lambda);
}

IntervalCode iterate_intervals(const RateSums& line, IntervalCode start, double lambda, LengthForm form) {
  const auto price = [&](const IntervalCode& code) {
    return code.distortion + lambda * (form == LengthForm::entropy ? code.bits : bits_in_form(line, code.ends, form));
  };
  IntervalCode best = std::move(start);
  double least = price(best);
  for (int round = 0; round < kMaxRounds; ++round) {
    const auto levels = interval_levels(line, best.ends);
    auto ends = assign_by_rate(line, levels, lengths_in_form(line, best.ends, form), lambda);
    if (ends == best.ends) break;
    IntervalCode next = interval_code(line, std::move(ends));
    const double now = price(next);
    if (!(now < least)) break;
    best = std::move(next);
    least = now;
  }
  return best;
}

}  // namespace lmq
