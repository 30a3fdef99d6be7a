#include "joint_code.hpp"

#include <algorithm>
#include <numeric>

#include "core/priced_levels.hpp"

namespace lmq {
namespace {
constexpr int kMaxRounds = 100;
constexpr double kMinGain = 1e-7;  // of the price, that is worth another round
}  // namespace

JointSums::JointSums(const Group& group, const RateSums& whole) : whole_(whole) {
  for (const GroupLayer& layer : group.layers)
    layers_.push_back({layer.importance, RateSums(layer.group, whole.centre)});
}

JointCode JointSums::start(const IntervalCode& code, LengthForm form) const {
  std::vector<Sums> sums(code.cells());
  for (std::size_t t = 0; t < sums.size(); ++t) {
    const std::size_t i = code.ends[t], j = code.ends[t + 1];
    sums[t] = {whole_.n[j] - whole_.n[i], whole_.a[j] - whole_.a[i], whole_.b[j] - whole_.b[i],
               whole_.c[j] - whole_.c[i]};
  }
  return code_of(interval_levels(whole_, code.ends), std::move(sums), form);
}

JointCode JointSums::improve(JointCode best, double lambda, LengthForm form) const {
  for (int round = 0; round < kMaxRounds; ++round) {
    JointCode next = code_of(best.levels, assign(best, lambda), form);
    const bool worth = next.price(lambda) < best.price(lambda) * (1 - kMinGain);
    if (next.price(lambda) < best.price(lambda)) best = std::move(next);
    if (!worth) break;
  }
  return best;
}

// What the levels get, layer by layer in order.
std::vector<JointSums::Sums> JointSums::assign(const JointCode& code, double lambda) const {
  std::vector<Sums> sums(code.levels.size());
  std::vector<double> prices(code.lengths);
  for (double& price : prices) price *= lambda;
  PricedCuts cuts;
  for (const Layer& layer : layers_) {
    priced_cuts(code.levels, prices, layer.importance, cuts);
    const RateSums& line = layer.line;
    std::size_t begin = 0;
    for (std::size_t interval = 0; interval < cuts.order.size(); ++interval) {
      std::size_t end = line.points;
      if (interval < cuts.cuts.size())
        end = static_cast<std::size_t>(std::lower_bound(line.value.begin() + static_cast<std::ptrdiff_t>(begin),
                                                        line.value.end(), double{cuts.cuts[interval]}) -
                                       line.value.begin());
      if (end == begin) continue;
      Sums& sum = sums[cuts.order[interval]];
      sum.n += line.n[end] - line.n[begin], sum.a += line.a[end] - line.a[begin];
      sum.b += line.b[end] - line.b[begin], sum.c += line.c[end] - line.c[begin];
      begin = end;
    }
  }
  return sums;
}

// Means and lengths of what the levels got; those that got nothing go.
JointCode JointSums::code_of(std::vector<double> levels, std::vector<Sums> sums, LengthForm form) const {
  const bool pinned = whole_.zero < whole_.points;  // then the centre is 0, and so is one level
  std::vector<std::size_t> kept;
  for (std::size_t l = 0; l < levels.size(); ++l) {
    if (!(sums[l].n > 0)) continue;
    kept.push_back(l);
    if (!pinned || levels[l] != 0) levels[l] = whole_.centre + sums[l].b / sums[l].a;
  }
  std::ranges::stable_sort(kept, {}, [&](std::size_t l) { return levels[l]; });
  JointCode code;
  std::vector<Sums> groups;
  for (const std::size_t l : kept) {
    if (!groups.empty() && static_cast<float>(code.levels.back()) == static_cast<float>(levels[l])) {
      Sums& group = groups.back();  // as levels they are one
      group.n += sums[l].n, group.a += sums[l].a, group.b += sums[l].b, group.c += sums[l].c;
      if (levels[l] == 0) code.levels.back() = 0;
      continue;
    }
    code.levels.push_back(levels[l]);
    groups.push_back(sums[l]);
  }
  std::vector<double> counts;
  for (std::size_t l = 0; l < groups.size(); ++l) {
    const double level = code.levels[l] - whole_.centre;
    const Sums& sum = groups[l];
    code.distortion += std::max(sum.c - level * (2 * sum.b - level * sum.a), 0.0);
    counts.push_back(sum.n);
  }
  code.lengths = code_lengths(counts, form);
  for (std::size_t l = 0; l < counts.size(); ++l) code.length += counts[l] * code.lengths[l];
  code.bits = code.length;
  if (form == LengthForm::entropy) return code;
  const auto entropy = code_lengths(counts, LengthForm::entropy);
  code.bits = 0;
  for (std::size_t l = 0; l < counts.size(); ++l) code.bits += counts[l] * entropy[l];
  return code;
}

}  // namespace lmq
