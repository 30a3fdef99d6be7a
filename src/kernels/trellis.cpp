#include "lmq/kernels/trellis.hpp"

#include <array>

#include "trellis_branches.hpp"

namespace lmq {
namespace {

struct Candidate {
  std::int32_t cost, code;
};

/// Value in 1/256 step and code of place m in a set, on the side of 0 the target is on.
struct Place {
  std::int32_t value, code;
};
Place place_of(int set, bool zero, std::int32_t m) noexcept {
  const std::int32_t value = 4 * m + kSetOffset[set];
  if (set == 0) return {value, 2 * m};
  if (set == 1) return {value, 2 * m + 1};
  if (set == 2) return {value, zero ? 2 * m + 1 : 2 * m};
  return zero ? Place{std::max(value, 0), 2 * m} : Place{value, 2 * m - 1};
}

std::int32_t price_of(const TrellisRates& rates, unsigned spread, unsigned quantizer,
                      std::uint32_t magnitude) noexcept {
  return rates.price[spread][quantizer][std::min(magnitude >> rates.raw[spread], kPricedMagnitudes - 1)];
}
std::int32_t squared(std::int32_t distance, std::int32_t weight) noexcept {
  return distance * distance * weight >> kSquareShift;
}

/// The better of the nearest place and the one before it.
Candidate best_of(const TrellisRates& rates, int set, std::int32_t size, unsigned spread,
                  std::int32_t weight) noexcept {
  const bool zero = is_with_zero(spread);
  const unsigned quantizer = set >= 2 ? 1 : 0;
  const std::int32_t nearest = std::max((size - kTrellisOne * kSetOffset[set] + 2 * kTrellisOne) >> 10, 0);
  Candidate best{0, 0};
  for (std::int32_t m = nearest; m >= std::max(nearest - 1, 0); --m) {
    const Place place = place_of(set, zero, m);
    const std::uint32_t magnitude = trellis_magnitude(zero || quantizer == 0, place.code);
    const std::int32_t cost =
        squared(size - kTrellisOne * place.value, weight) + price_of(rates, spread, quantizer, magnitude);
    if (m == nearest || cost <= best.cost) best = {cost, place.code};
  }
  return best;
}
}  // namespace

void TrellisScratch::reserve(std::size_t weights) {
  if (odd.size() >= weights) return;
  costs.resize(4 * weights);
  codes.resize(4 * weights);
  odd.resize(weights);
}

Branches trellis_branches(const TrellisRates& rates, std::int32_t target, unsigned spread,
                          std::int32_t weight) noexcept {
  const bool negative = target < 0, zero = is_with_zero(spread);
  const std::int32_t size = negative ? -target : target;
  Branches branches{};
  for (int set = 0; set < 4; ++set) {
    const Candidate best = best_of(rates, set, size, spread, weight);
    const std::int32_t code = !negative ? best.code : set >= 2 && !zero ? -best.code - 1 : -best.code;
    const unsigned at = (set >= 2 ? 2 : 0) + (static_cast<unsigned>(code) & 1);
    branches.cost[at] = best.cost;
    branches.code[at] = code;
  }
  return branches;
}

std::int32_t scalar_code(const TrellisRates& rates, std::int32_t target, unsigned spread,
                         std::int32_t weight) noexcept {
  const std::int32_t size = target < 0 ? -target : target, nearest = (size + kTrellisOne / 2) / kTrellisOne;
  Candidate best{0, 0};
  for (std::int32_t m = nearest; m >= std::max(nearest - 1, 0); --m) {
    const std::int32_t cost =
        squared(size - kTrellisOne * m, weight) + price_of(rates, spread, 0, static_cast<std::uint32_t>(m));
    if (m == nearest || cost <= best.cost) best = {cost, m};
  }
  return target < 0 ? -best.code : best.code;
}

unsigned trellis_search_reference(const TrellisRates& rates, const TrellisRun& run, unsigned start,
                                  TrellisScratch& scratch, std::span<std::int32_t> codes) noexcept {
  const std::size_t count = codes.size();
  const unsigned states = rates.states;
  if (states == 1) {
    for (std::size_t i = 0; i < count; ++i)
      codes[i] = scalar_code(rates, run.target[i], run.spread[i], weight_of(run, i));
    return 0;
  }
  const TrellisTaps taps = trellis_taps(states);
  std::array<std::int32_t, kTrellisMaxStates> cost{}, next{};
  std::fill(cost.begin(), cost.begin() + states, kNoPath);
  cost[start] = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const Branches branch = trellis_branches(rates, run.target[i], run.spread[i], weight_of(run, i));
    std::uint32_t odd = 0;
    for (unsigned s = 0; s < states; ++s) {
      const unsigned quantizer = s >= states / 2 ? 1 : 0;
      const std::int32_t by_even = cost[trellis_before(taps, states, s, 0)] + branch.cost[2 * quantizer];
      const std::int32_t by_odd = cost[trellis_before(taps, states, s, 1)] + branch.cost[2 * quantizer + 1];
      next[s] = std::min(by_even, by_odd);
      odd |= static_cast<std::uint32_t>(by_odd < by_even) << s;
    }
    cost = next;
    scratch.odd[i] = odd;
    std::copy_n(branch.code, 4, scratch.codes.begin() + static_cast<std::ptrdiff_t>(4 * i));
    if (i % kLowerEvery == kLowerEvery - 1) {
      const std::int32_t least = *std::min_element(cost.begin(), cost.begin() + states);
      for (unsigned s = 0; s < states; ++s) cost[s] -= least;
    }
  }
  return trace_back(states, cost.data(), std::span(scratch.odd).first(count), codes,
                    [&](std::size_t i, unsigned branch) { return scratch.codes[4 * i + branch]; });
}

}  // namespace lmq
