#include "lmq/quant/sign_code.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "greedy_thresholds.hpp"
#include "lmq/kernels/assign.hpp"

namespace lmq {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// The smallest float that is not below the threshold.
float at_least(double threshold) {
  const auto near = static_cast<float>(threshold);
  return double{near} < threshold ? std::nextafter(near, kInfinity) : near;
}

Code greedy_code(std::span<const float> bases, float weight) {
  unsigned code = 0;
  double rest = weight;
  for (const float base : bases) {
    const bool plus = rest >= 0;
    code = 2 * code + plus;
    rest += plus ? -double{base} : double{base};
  }
  return static_cast<Code>(code);
}

}  // namespace

std::vector<double> greedy_thresholds(std::span<const double> bases) {
  std::vector<double> thresholds;
  for (std::size_t i = 0; i + 1 < bases.size(); ++i) {  // where the residual after base i + 1 is 0
    std::vector<double> zeros{bases[i]};
    for (std::size_t j = i; j-- > 0;) {
      std::vector<double> before;
      for (const double z : zeros) {
        before.push_back(bases[j] + z);
        if (bases[j] - z >= 0) before.push_back(bases[j] - z);
      }
      zeros = std::move(before);
    }
    thresholds.insert(thresholds.end(), zeros.begin(), zeros.end());
  }
  std::ranges::sort(thresholds);
  thresholds.erase(std::unique(thresholds.begin(), thresholds.end()), thresholds.end());
  return thresholds;
}

SignCode::SignCode(CodebookKind kind, std::span<const float> numbers, std::size_t count, SignRule rule)
    : level_count(count) {
  expand_levels(kind, numbers, std::span(levels).first(count));
  if (kind == CodebookKind::bases && rule == SignRule::greedy)
    decide_greedy(numbers);
  else
    decide_nearest(kind);
}

void SignCode::decide_nearest(CodebookKind kind) {
  for (std::size_t i = 0; i < level_count; ++i) codes[i] = static_cast<Code>(i);
  const auto all = std::span(levels).first(level_count);
  if (!std::ranges::is_sorted(all))
    std::ranges::stable_sort(std::span(codes).first(level_count), {}, [&](Code code) { return levels[code]; });
  intervals = 0;
  for (std::size_t i = 0; i < level_count; ++i) {  // of equal levels the last code is kept
    if (i + 1 < level_count && levels[codes[i]] == levels[codes[i + 1]]) continue;
    codes[intervals++] = codes[i];
  }
  if (kind == CodebookKind::centred && intervals == 1) codes[0] = static_cast<Code>(level_count / 2);
  in_order = intervals == level_count;
  for (std::size_t i = 0; i < intervals; ++i) in_order = in_order && codes[i] == i;
  for (std::size_t i = 0; i + 1 < intervals; ++i) {
    const float below = levels[codes[i]], above = levels[codes[i + 1]];
    cuts[i] = below == -above ? 0.0F : level_boundary(below, above);
  }
}

void SignCode::decide_greedy(std::span<const float> bases) {
  const std::vector<double> wide(bases.begin(), bases.end());
  std::vector<double> thresholds = greedy_thresholds(wide);
  const std::size_t positive = thresholds.size();
  thresholds.push_back(0);
  for (std::size_t i = 0; i < positive; ++i) thresholds.push_back(-thresholds[i]);
  std::ranges::sort(thresholds);
  codes[0] = 0;
  intervals = 1;
  for (const double threshold : thresholds) {
    const float cut = at_least(threshold);
    if (intervals > 1 && !(cuts[intervals - 2] < cut)) continue;
    const Code code = greedy_code(bases, cut);
    if (code == codes[intervals - 1]) continue;  // no decision here
    cuts[intervals - 1] = cut;
    codes[intervals++] = code;
  }
  in_order = intervals == level_count;
  for (std::size_t i = 0; i < intervals; ++i) in_order = in_order && codes[i] == i;
}

}  // namespace lmq
