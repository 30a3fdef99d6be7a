#include "entropy_fit.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "plain_steps.hpp"

namespace lmq {
namespace {

constexpr double kLevelBits = 32;     // of a level in the file, against two numbers of a grid
constexpr double kRateSlack = 5e-4;   // bits per weight below the rate that are as good as the rate
constexpr double kMinOctaves = -200;  // of lambda: where all that the levels allow is spent
constexpr int kRateSteps = 40, kFillSteps = 12;

// Every point its own level: nothing is lost.
std::vector<std::uint32_t> single_points(const RateSums& line) {
  std::vector<std::uint32_t> ends(line.points + 1);
  std::iota(ends.begin(), ends.end(), 0u);
  return ends;
}

// Up to 32 codes are coded three times as fast as more: a few cells far out are merged where that is as good as free.
void within_quick_alphabet(const RateSums& line, EntropyCode& code) {
  constexpr std::size_t kQuick = 32, kFew = 48;
  constexpr double kFree = 1e-4;  // of the price
  if (code.found.on_grid || !code.found.levels.empty() || code.found.code.cells() <= kQuick ||
      code.found.code.cells() > kFew)
    return;
  auto ends = code.found.code.ends;
  merge_outer_cells(line, kQuick, ends);
  IntervalCode merged = interval_code(line, std::move(ends));
  if (merged.price(code.lambda) <= code.found.code.price(code.lambda) * (1 + kFree))
    code.found.code = std::move(merged);
}

}  // namespace

EntropyCode EntropyFitter::at(const RateSums& line, const EcsqOptions& wish, double lambda, bool quick) {
  const UniformSearch steps{lambda, wish.cuts, wish.most_levels, kLevelBits};
  if (wish.way == EcsqAlgorithm::uniform && wish.cuts == CutRule::plain && lambda > 0) return plain(line, wish, lambda);
  if (wish.way == EcsqAlgorithm::uniform) {
    EntropyCode code{best_uniform(line, steps), lambda};
    within_quick_alphabet(line, code);
    return code;
  }
  const auto optimum = [&] {
    return quick ? search_.quick(line, lambda, wish.most_levels) : search_.exact(line, lambda, wish.most_levels);
  };
  EntropyCode code{{}, lambda};
  if (wish.way == EcsqAlgorithm::exact) {
    code.found.code = optimum();
  } else {
    const auto price = [&](const IntervalCode& one) {
      return one.distortion + lambda * bits_in_form(line, one.ends, wish.form);
    };
    IntervalCode& best = code.found.code;
    if (wish.start != StartRule::uniform) best = iterate_intervals(line, optimum(), lambda, wish.form);
    if (wish.start != StartRule::optimum) {
      IntervalCode other = iterate_intervals(line, from_uniform(line, wish, lambda), lambda, wish.form);
      if (best.ends.empty() || price(other) < price(best)) best = std::move(other);
    }
  }
  if (joint_ != nullptr && lambda > 0) join(line, wish, code);
  return code;
}

// Where the levels do not reach (7 bits and more of 256 levels), growing steps cost more than they protect.
EntropyCode EntropyFitter::plain(const RateSums& line, const EcsqOptions& wish, double lambda) {
  constexpr double kTooDear = 0.95;
  EntropyCode code{plain_code(line, lambda, wish.most_levels), lambda};
  if (code.found.on_grid) return code;
  const double price = kTooDear * code.found.code.price(lambda);
  if (auto optimum = search_.cheaper(line, lambda, wish.most_levels, price)) code.found = {.code = std::move(*optimum)};
  return code;
}

IntervalCode EntropyFitter::from_uniform(const RateSums& line, const EcsqOptions& wish, double lambda) const {
  return best_uniform(line, {lambda, CutRule::grid, wish.most_levels, -1}).code;
}

// Both starts of the iteration, because it ends in a local optimum; kept where it is cheaper than the interval code.
void EntropyFitter::join(const RateSums& line, const EcsqOptions& wish, EntropyCode& code) const {
  const IntervalCode& best = code.found.code;
  double least = best.distortion + code.lambda * bits_in_form(line, best.ends, wish.form);
  const auto attempt = [&](const IntervalCode& start) {
    JointCode found = joint_->improve(joint_->start(start, wish.form), code.lambda, wish.form);
    if (!(found.price(code.lambda) < least)) return;
    least = found.price(code.lambda);
    code.joint = std::move(found);
  };
  attempt(best);
  attempt(from_uniform(line, wish, code.lambda));
}

EntropyCode EntropyFitter::fit(const RateSums& line, const EcsqOptions& wish) {
  if (line.points == 1 || !(line.energy > 0))
    return {{.code = interval_code(line, {0, static_cast<std::uint32_t>(line.points)})}, 0};
  if (wish.rate) return fit_rate(line, wish);
  return at(line, wish, wish.slope ? *wish.slope * line.energy / line.count : wish.lambda.value(), false);
}

EntropyCode EntropyFitter::fit_rate(const RateSums& line, const EcsqOptions& wish) {
  const double most = *wish.rate * line.count;
  if (line.points <= wish.most_levels) {
    IntervalCode lossless = interval_code(line, single_points(line));
    if (lossless.bits <= most) return {{.code = std::move(lossless)}, 0};
  }
  // lambda = variance * 2^octaves: the same steps at any scale of the values. Two octaves a bit at high rates.
  const double unit = line.energy / line.count;
  double octaves = 1 - 2 * *wish.rate, low = kMinOctaves, high = 80;  // low: too many bits
  EntropyCode best{{.code = interval_code(line, {0, static_cast<std::uint32_t>(line.points)})}, 0};
  if (*wish.rate + 1 > plain_log2(static_cast<double>(wish.most_levels))) {  // perhaps more than the levels can spend
    EntropyCode all = at(line, wish, unit * plain_exp2(kMinOctaves), true);
    if (all.bits() <= most) return all;
  }
  // A weight more or less in a cell is a step of about 1 / n; half a bit an octave, so what a bracket as narrow as the
  // slack leaves out is a jump.
  const double slack = std::max(kRateSlack, 1 / line.count);
  for (int step = 0; step < kRateSteps && high - low > slack; ++step) {
    EntropyCode found = at(line, wish, unit * plain_exp2(octaves), true);
    const double over = (found.bits() - most) / line.count;
    (over > 0 ? low : high) = octaves;
    if (over <= 0) best = std::move(found);
    if (over <= 0 && (over >= -slack || octaves <= kMinOctaves)) break;
    const double aim = octaves + 2 * (over + slack / 2);
    const double edge = std::min(0.02 * (high - low), 0.05);
    if (low == kMinOctaves || high == 80)
      octaves = std::clamp(aim + (aim - octaves) * step, kMinOctaves, 80.0);
    else
      octaves = step > 4 && step % 3 != 0 ? std::midpoint(low, high) : std::clamp(aim, low + edge, high - edge);
  }
  if (wish.way != EcsqAlgorithm::uniform) best = exact_near(line, wish, high, std::move(best));
  if (low > kMinOctaves) fill_rate(line, wish, best);
  if (wish.way == EcsqAlgorithm::uniform) within_quick_alphabet(line, best);
  return best;
}

// The lower hull has gaps, where cells come and go. Inside one, the cells that were found grow finer: with the same
// number of them, at a smaller lambda, or by a smaller step.
void EntropyFitter::fill_rate(const RateSums& line, const EcsqOptions& wish, EntropyCode& best) const {
  const double most = *wish.rate * line.count;
  if (best.found.code.cells() < 2 || !best.found.levels.empty()) return;
  const EntropyCode from = best;
  double enough = 0, too_far = 1;  // octaves of lambda, half as many of the step
  const double slack = std::max(kRateSlack * line.count, 1.0);
  for (int step = 0; step < kFillSteps && most - best.bits() > slack; ++step) {
    const double part = std::midpoint(enough, too_far), lambda = from.lambda * plain_exp2(-part);
    EntropyCode next{from.found, from.lambda};
    if (wish.way == EcsqAlgorithm::uniform)
      next.found = uniform_code(line, from.found.step * plain_exp2(-part / 2), from.found.zero_on_cut,
                                {from.lambda, wish.cuts, wish.most_levels, kLevelBits});
    else if (from.joint)
      next.lambda = lambda, next.joint = joint_->improve(*from.joint, lambda, wish.form);
    else
      next.found.code = iterate_intervals(line, from.found.code, lambda, wish.form);
    const bool fits = next.bits() <= most;
    (fits ? enough : too_far) = part;
    if (fits && next.distortion() < best.distortion()) best = std::move(next);
  }
}

// The same with the exact search, whose entropy may be a little more.
EntropyCode EntropyFitter::exact_near(const RateSums& line, const EcsqOptions& wish, double octaves,
                                      EntropyCode fallback) {
  const double unit = line.energy / line.count, most = *wish.rate * line.count;
  for (int attempt = 0; attempt < 3; ++attempt) {
    EntropyCode found = at(line, wish, unit * plain_exp2(octaves), false);
    const double over = (found.bits() - most) / line.count;
    if (over <= 0) return found;
    octaves += 2 * over + kRateSlack;
  }
  return fallback;
}

}  // namespace lmq
