#include "entropy_fit.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace lmq {
namespace {

constexpr double kLevelBits = 32;       // of a level in the file, against two numbers of a grid
constexpr double kRateSlack = 5e-4;     // bits per weight below the rate that are as good as the rate
constexpr double kLeastOctaves = -200;  // of lambda: where all that the levels allow is spent
constexpr int kRateSteps = 40, kFillSteps = 12;

// Every point its own level: nothing is lost.
std::vector<std::uint32_t> single_points(const RateLine& line) {
  std::vector<std::uint32_t> ends(line.points + 1);
  std::iota(ends.begin(), ends.end(), 0u);
  return ends;
}

// Up to 32 codes are coded three times as fast as more: a few cells far out are merged where that is as good as free.
void within_quick_alphabet(const RateLine& line, EntropyCode& code) {
  constexpr std::size_t kQuick = 32, kFew = 48;
  constexpr double kFree = 1e-4;  // of the price
  if (code.found.on_grid || code.found.code.cells() <= kQuick || code.found.code.cells() > kFew) return;
  auto ends = code.found.code.ends;
  merge_outer_cells(line, kQuick, ends);
  IntervalCode merged = interval_code(line, std::move(ends));
  if (merged.price(code.lambda) <= code.found.code.price(code.lambda) * (1 + kFree))
    code.found.code = std::move(merged);
}

}  // namespace

EntropyCode EntropyFitter::at(const RateLine& line, const EntropyWish& wish, double lambda, bool quick) {
  const UniformSearch steps{lambda, wish.cuts, wish.most_levels, kLevelBits};
  if (wish.way == EntropyWay::uniform) {
    EntropyCode code{best_uniform(line, steps), lambda};
    within_quick_alphabet(line, code);
    return code;
  }
  const auto optimum = [&] {
    return quick ? search_.quick(line, lambda, wish.most_levels) : search_.exact(line, lambda, wish.most_levels);
  };
  if (wish.way == EntropyWay::exact) return {{.code = optimum()}, lambda};
  const auto price = [&](const IntervalCode& code) {
    return code.distortion + lambda * bits_in_form(line, code.ends, wish.form);
  };
  IntervalCode best;
  if (wish.start != StartRule::uniform) best = iterate_intervals(line, optimum(), lambda, wish.form);
  if (wish.start != StartRule::optimum) {
    const UniformSearch plain{lambda, CutRule::grid, wish.most_levels, -1};
    IntervalCode other = iterate_intervals(line, best_uniform(line, plain).code, lambda, wish.form);
    if (best.ends.empty() || price(other) < price(best)) best = std::move(other);
  }
  return {{.code = std::move(best)}, lambda};
}

EntropyCode EntropyFitter::fit(const RateLine& line, const EntropyWish& wish) {
  if (line.points == 1 || !(line.energy > 0))
    return {{.code = interval_code(line, {0, static_cast<std::uint32_t>(line.points)})}, 0};
  if (!std::isnan(wish.rate)) return fit_rate(line, wish);
  return at(line, wish, std::isnan(wish.slope) ? wish.lambda : wish.slope * line.energy / line.count, false);
}

EntropyCode EntropyFitter::fit_rate(const RateLine& line, const EntropyWish& wish) {
  const double most = wish.rate * line.count;
  if (line.points <= wish.most_levels) {
    IntervalCode lossless = interval_code(line, single_points(line));
    if (lossless.bits <= most) return {{.code = std::move(lossless)}, 0};
  }
  // lambda = variance * 2^octaves: the same steps at any scale of the values. Two octaves a bit at high rates.
  const double unit = line.energy / line.count;
  double octaves = 1 - 2 * wish.rate, low = kLeastOctaves, high = 80;  // low: too many bits
  EntropyCode best{{.code = interval_code(line, {0, static_cast<std::uint32_t>(line.points)})}, 0};
  if (wish.rate + 1 > plain_log2(static_cast<double>(wish.most_levels))) {  // perhaps more than the levels can spend
    EntropyCode all = at(line, wish, unit * plain_exp2(kLeastOctaves), true);
    if (all.found.code.bits <= most) return all;
  }
  // A weight more or less in a cell is a step of about 1 / n; half a bit an octave, so what a bracket as narrow as the
  // slack leaves out is a jump.
  const double slack = std::max(kRateSlack, 1 / line.count);
  for (int step = 0; step < kRateSteps && high - low > slack; ++step) {
    EntropyCode found = at(line, wish, unit * plain_exp2(octaves), true);
    const double over = (found.found.code.bits - most) / line.count;
    (over > 0 ? low : high) = octaves;
    if (over <= 0) best = std::move(found);
    if (over <= 0 && (over >= -slack || octaves <= kLeastOctaves)) break;
    const double aim = octaves + 2 * (over + slack / 2);
    const double edge = std::min(0.02 * (high - low), 0.05);
    if (low == kLeastOctaves || high == 80)
      octaves = std::clamp(aim + (aim - octaves) * step, kLeastOctaves, 80.0);
    else
      octaves = step > 4 && step % 3 != 0 ? std::midpoint(low, high) : std::clamp(aim, low + edge, high - edge);
  }
  if (wish.way != EntropyWay::uniform) best = exact_near(line, wish, high, std::move(best));
  if (low > kLeastOctaves) fill_rate(line, wish, best);
  if (wish.way == EntropyWay::uniform) within_quick_alphabet(line, best);
  return best;
}

// The lower hull has gaps, where cells come and go. Inside one, the cells that were found grow finer: with the same
// number of them, at a smaller lambda, or by a smaller step.
void EntropyFitter::fill_rate(const RateLine& line, const EntropyWish& wish, EntropyCode& best) {
  const double most = wish.rate * line.count;
  if (best.found.code.cells() < 2) return;
  const UniformCode from = best.found;
  double enough = 0, too_far = 1;  // octaves of lambda, half as many of the step
  const double slack = std::max(kRateSlack * line.count, 1.0);
  for (int step = 0; step < kFillSteps && most - best.found.code.bits > slack; ++step) {
    const double part = std::midpoint(enough, too_far), lambda = best.lambda * plain_exp2(-part);
    UniformCode next{};
    if (wish.way == EntropyWay::uniform)
      next = uniform_code(line, from.step * plain_exp2(-part / 2), from.zero_on_cut,
                          {best.lambda, wish.cuts, wish.most_levels, kLevelBits});
    else
      next.code = iterate_intervals(line, from.code, lambda, wish.form);
    const bool fits = next.code.bits <= most;
    (fits ? enough : too_far) = part;
    if (fits && next.code.distortion < best.found.code.distortion) best.found = std::move(next);
  }
}

// The same with the exact search, whose entropy may be a little more.
EntropyCode EntropyFitter::exact_near(const RateLine& line, const EntropyWish& wish, double octaves,
                                      EntropyCode fallback) {
  const double unit = line.energy / line.count, most = wish.rate * line.count;
  for (int attempt = 0; attempt < 3; ++attempt) {
    EntropyCode found = at(line, wish, unit * plain_exp2(octaves), false);
    const double over = (found.found.code.bits - most) / line.count;
    if (over <= 0) return found;
    octaves += 2 * over + kRateSlack;
  }
  return fallback;
}

}  // namespace lmq
