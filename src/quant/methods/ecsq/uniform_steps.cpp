#include "uniform_steps.hpp"

#include <algorithm>
#include <cmath>

#include "interval_lloyd.hpp"

namespace lmq {
namespace {

constexpr int kRateRounds = 3;                   // cuts by rate: further rounds are the paper's iteration, not uniform
constexpr int kSteps = 12, kStepsPerOctave = 4;  // of the first look, from half the width of high rates on
constexpr int kCloser = 4;                       // halvings of the distance afterwards

// The first edge behind the points below x.
std::uint32_t edge_at(const RateSums& line, double x, std::uint32_t from) {
  const auto first = line.value.begin() + from;
  return static_cast<std::uint32_t>(std::lower_bound(first, line.value.end(), x) - line.value.begin());
}

double cell_number(double value, double step, bool zero_on_cut) {
  return zero_on_cut ? std::floor(value / step) : std::floor(value / step + 0.5);
}

// Squared error of the cells with levels on the grid instead of their means.
double error_on_grid(const RateSums& line, const UniformCode& of, double low) {
  double sum = 0;
  const CellColumns edges = line.columns();
  for (std::size_t t = 1; t < of.code.ends.size(); ++t) {
    const std::size_t i = of.code.ends[t - 1], j = of.code.ends[t];
    const double mass = line.a[j] - line.a[i], mean = (line.b[j] - line.b[i]) / mass + line.centre;
    const double level = low + of.step * std::floor((line.value[i] - low) / of.step + 0.5), off = mean - level;
    sum += cell_error(edges, i, j, false) + mass * (off * off);
  }
  return sum;
}

void try_grid(const RateSums& line, const UniformSearch& search, UniformCode& of) {
  const double shift = of.zero_on_cut ? 0.5 : 0.0;
  const double first = cell_number(line.value.front(), of.step, of.zero_on_cut);
  const double last = cell_number(line.value.back(), of.step, of.zero_on_cut);
  const double count = last - first + 1;
  if (of.code.cells() < 3 || count > static_cast<double>(search.most_cells)) return;
  const double low = (first + shift) * of.step, error = error_on_grid(line, of, low);
  const double saved = search.lambda * search.level_bits * static_cast<double>(of.code.cells() - 2);
  if (error - of.code.distortion > saved) return;
  of.on_grid = true;
  of.low = low;
  of.grid_levels = static_cast<std::size_t>(count);
  of.code.distortion = error;
}

std::vector<double> ideal_lengths(const RateSums& line, const IntervalCode& code) {
  std::vector<double> bits;
  for (std::size_t t = 1; t < code.ends.size(); ++t)
    bits.push_back(-plain_log2((line.n[code.ends[t]] - line.n[code.ends[t - 1]]) * line.inverse_count));
  return bits;
}

}  // namespace

void merge_outer_cells(const RateSums& line, std::size_t most, std::vector<std::uint32_t>& ends) {
  std::size_t first = 1, last = ends.size() - 2;  // the inner ends that are left
  while (last + 2 - first > most) {
    const double low = line.n[ends[first]] - line.n[ends.front()], high = line.n[ends.back()] - line.n[ends[last]];
    low < high ? ++first : --last;
  }
  ends.erase(ends.begin() + static_cast<std::ptrdiff_t>(last + 1), ends.end() - 1);
  ends.erase(ends.begin() + 1, ends.begin() + static_cast<std::ptrdiff_t>(first));
}

std::vector<std::uint32_t> uniform_cells(const RateSums& line, double step, bool zero_on_cut, std::size_t most_cells) {
  std::vector<std::uint32_t> ends{0};
  const double shift = zero_on_cut ? 1.0 : 0.5;
  for (std::uint32_t at = 0; at < line.points;) {
    const double number = cell_number(line.value[at], step, zero_on_cut);
    at = std::max(edge_at(line, (number + shift) * step, at), at + 1);
    ends.push_back(at);
  }
  if (ends.size() - 1 > most_cells) merge_outer_cells(line, most_cells, ends);
  return ends;
}

UniformCode uniform_code(const RateSums& line, double step, bool zero_on_cut, const UniformSearch& search) {
  UniformCode best{.code = interval_code(line, uniform_cells(line, step, zero_on_cut, search.most_cells)),
                   .step = step,
                   .zero_on_cut = zero_on_cut};
  if (search.cuts != CutRule::grid) {
    IntervalCode now = best.code, cheapest;
    for (int round = 0; round < kRateRounds; ++round) {
      auto ends = assign_by_envelope(line, interval_levels(line, now.ends), ideal_lengths(line, now), search.lambda);
      if (ends == now.ends) break;
      now = interval_code(line, std::move(ends));
      if (cheapest.ends.empty() || now.price(search.lambda) < cheapest.price(search.lambda)) cheapest = now;
    }
    const bool better = !cheapest.ends.empty() && cheapest.price(search.lambda) < best.code.price(search.lambda);
    if (!cheapest.ends.empty() && (better || search.cuts == CutRule::rate)) {
      best.code = std::move(cheapest);
      best.rate_cuts = true;
    }
  }
  if (!best.rate_cuts && line.zero == line.points) try_grid(line, search, best);
  return best;
}

UniformCode best_uniform(const RateSums& line, const UniformSearch& search) {
  // lambda = 2 ln 2 D, D = step^2 / 12 at high rates; 256 cells of less would not reach over one deviation.
  const double high_rate = std::sqrt(search.lambda * line.count / line.mass * 8.656170245333781);
  const double width = std::max(high_rate, std::sqrt(line.variance()) * 0x1p-8);
  const double spread = line.value.back() - line.value.front();
  UniformCode best{.code = interval_code(line, {0, static_cast<std::uint32_t>(line.points)}), .step = 2 * spread};
  if (!(spread > 0) || !(width > 0)) return best;
  const auto attempt = [&](double step) {
    if (!(step > spread * 0x1p-40) || step > 2 * spread) return;
    for (const bool on_cut : {false, true}) {
      UniformCode found = uniform_code(line, step, on_cut, search);
      if (found.code.price(search.lambda) < best.code.price(search.lambda)) best = std::move(found);
    }
  };
  for (int k = 0; k <= kSteps; ++k) attempt(width * plain_exp2(static_cast<double>(k) / kStepsPerOctave - 1));
  for (double part = 0.5; part > 1.0 / (2 << kCloser); part /= 2)
    for (const double side : {-1.0, 1.0}) attempt(best.step * plain_exp2(side * part / kStepsPerOctave));
  return best;
}

}  // namespace lmq
