#include <array>

#include "lmq/kernels/isa.hpp"
#include "lmq/kernels/trellis.hpp"
#include "trellis_branches.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "trellis_vector.cpp"
#include "targets.hpp"
// foreach_target must come before highway.h
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace lmq::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET <= HWY_AVX2
using Ints = hn::ScalableTag<std::int32_t>;
using V = hn::Vec<Ints>;
using M = hn::Mask<Ints>;

/// Weights of one vector, their values without sign.
struct Targets {
  V size, weight, row, raw;  ///< row: where the class's prices of quantizer 0 begin
  M zero;
  bool any_raw;
};

struct Best {
  V cost, code;
};

/// Cost and code of place m of a set (trellis_branches.hpp).
template <int kSet>
HWY_INLINE Best place(const std::int32_t* prices, const Targets& t, V m) {
  const Ints d;
  V value = hn::Add(hn::ShiftLeft<10>(m), hn::Set(d, kTrellisOne * kSetOffset[kSet]));
  V code = hn::Add(m, m), magnitude = code;
  if constexpr (kSet == 1) code = hn::Add(code, hn::Set(d, 1)), magnitude = code;
  if constexpr (kSet == 2) code = hn::IfThenElse(t.zero, hn::Add(code, hn::Set(d, 1)), code), magnitude = code;
  if constexpr (kSet == 3) {
    value = hn::IfThenElse(t.zero, hn::Max(value, hn::Zero(d)), value);
    code = hn::IfThenElse(t.zero, code, hn::Sub(code, hn::Set(d, 1)));
    magnitude = hn::Max(code, hn::Zero(d));
  }
  if (t.any_raw) magnitude = hn::Shr(magnitude, t.raw);
  magnitude = hn::Min(magnitude, hn::Set(d, static_cast<std::int32_t>(kPricedMagnitudes) - 1));
  constexpr std::int32_t kQuantizer = kSet >= 2 ? kPricedMagnitudes : 0;
  const V price = hn::GatherIndex(d, prices + kQuantizer, hn::Add(t.row, magnitude));
  const V distance = hn::Sub(t.size, value);
  const V square = hn::ShiftRight<kSquareShift>(hn::Mul(hn::Mul(distance, distance), t.weight));
  return {hn::Add(square, price), code};
}

template <int kSet>
HWY_INLINE Best best_place(const std::int32_t* prices, const Targets& t) {
  const Ints d;
  constexpr std::int32_t kShift = 2 * kTrellisOne - kTrellisOne * kSetOffset[kSet];
  const V m = hn::Max(hn::ShiftRight<10>(hn::Add(t.size, hn::Set(d, kShift))), hn::Zero(d));
  const Best nearest = place<kSet>(prices, t, m);
  const Best inner = place<kSet>(prices, t, hn::Max(hn::Sub(m, hn::Set(d, 1)), hn::Zero(d)));
  const M keep = hn::Lt(nearest.cost, inner.cost);
  return {hn::Min(nearest.cost, inner.cost), hn::IfThenElse(keep, nearest.code, inner.code)};
}

/// Branches of whole vectors of weights from 0 on; returns how many weights those are. Costs by weight, [4] each;
/// codes by branch, [4][count].
std::size_t branches(const TrellisRates& rates, const TrellisRun& run, TrellisScratch& scratch, std::size_t count) {
  const Ints d;
  const hn::Rebind<std::uint8_t, Ints> d8;
  const hn::Rebind<std::uint16_t, Ints> d16;
  const std::int32_t* prices = rates.price[0][0].data();
  const V one = hn::Set(d, 1), first_odd = hn::Set(d, static_cast<std::int32_t>(kLastZeroClass) + 1);
  std::size_t i = 0;
  for (; i + hn::Lanes(d) <= count; i += hn::Lanes(d)) {
    const V target = hn::LoadU(d, run.target.data() + i);
    const V spread = hn::PromoteTo(d, hn::LoadU(d8, run.spread.data() + i));
    Targets t;
    t.size = hn::Abs(target);
    t.weight = run.weight.empty() ? hn::Set(d, kTrellisOne) : hn::PromoteTo(d, hn::LoadU(d16, run.weight.data() + i));
    t.row = hn::ShiftLeft<7>(spread);
    t.zero = hn::Lt(spread, first_odd);
    t.raw = hn::GatherIndex(d, rates.raw.data(), spread);
    t.any_raw = !hn::AllTrue(d, hn::Eq(t.raw, hn::Zero(d)));
    const Best a = best_place<0>(prices, t), b = best_place<1>(prices, t);
    const Best c = best_place<2>(prices, t), e = best_place<3>(prices, t);
    const M negative = hn::Lt(target, hn::Zero(d)), mirrored = hn::AndNot(t.zero, negative);
    // The codes of set 2 are even where there is no zero and the target is not negative, else those of set 3.
    const M swap = hn::Or(t.zero, negative);
    const auto turn = [&](V code, bool odd_quantizer) HWY_ATTR {
      const V turned = hn::IfThenElse(negative, hn::Neg(code), code);
      return odd_quantizer ? hn::IfThenElse(mirrored, hn::Sub(turned, one), turned) : turned;
    };
    const V c_code = turn(c.code, true), e_code = turn(e.code, true);
    hn::StoreInterleaved4(a.cost, b.cost, hn::IfThenElse(swap, e.cost, c.cost), hn::IfThenElse(swap, c.cost, e.cost), d,
                          scratch.costs.data() + 4 * i);
    hn::StoreU(turn(a.code, false), d, scratch.codes.data() + i);
    hn::StoreU(turn(b.code, false), d, scratch.codes.data() + count + i);
    hn::StoreU(hn::IfThenElse(swap, e_code, c_code), d, scratch.codes.data() + 2 * count + i);
    hn::StoreU(hn::IfThenElse(swap, c_code, e_code), d, scratch.codes.data() + 3 * count + i);
  }
  return i;
}

/// Lanes of predecessors and branches for a register of kLanes states from `first` on; more lanes than states repeat.
template <std::size_t kLanes>
struct Steps {
  alignas(64) std::int32_t even[kLanes], odd[kLanes], even_cost[kLanes], odd_cost[kLanes];
  Steps(unsigned states, unsigned first) {
    const TrellisTaps taps = trellis_taps(states);
    for (unsigned lane = 0; lane < kLanes; ++lane) {
      const unsigned s = (first + lane) % states;
      even[lane] = static_cast<std::int32_t>(trellis_before(taps, states, s, 0));
      odd[lane] = static_cast<std::int32_t>(trellis_before(taps, states, s, 1));
      even_cost[lane] = s >= states / 2 ? 2 : 0;
      odd_cost[lane] = even_cost[lane] + 1;
    }
  }
};

template <class D>
HWY_INLINE std::uint32_t bits_of(D d, hn::Mask<D> m) {
  std::uint8_t bytes[8] = {};
  hn::StoreMaskBits(d, m, bytes);
  return static_cast<std::uint32_t>(bytes[0] | bytes[1] << 8);
}

/// Paths of at most kLanes states.
template <std::size_t kLanes>
void paths(unsigned states, TrellisScratch& scratch, std::size_t count, std::int32_t* cost) {
  const hn::FixedTag<std::int32_t, kLanes> d;
  const Steps<kLanes> steps(states, 0);
  const auto even = hn::SetTableIndices(d, steps.even), odd = hn::SetTableIndices(d, steps.odd);
  const auto even_cost = hn::SetTableIndices(d, steps.even_cost), odd_cost = hn::SetTableIndices(d, steps.odd_cost);
  auto j = hn::LoadU(d, cost);
  for (std::size_t i = 0; i < count; ++i) {
    const auto branch = hn::LoadDup128(d, scratch.costs.data() + 4 * i);
    const auto by_even = hn::Add(hn::TableLookupLanes(j, even), hn::TableLookupLanes(branch, even_cost));
    const auto by_odd = hn::Add(hn::TableLookupLanes(j, odd), hn::TableLookupLanes(branch, odd_cost));
    j = hn::Min(by_even, by_odd);
    scratch.odd[i] = bits_of(d, hn::Lt(by_odd, by_even));
    if (i % kLowerEvery == kLowerEvery - 1) j = hn::Sub(j, hn::MinOfLanes(d, j));
  }
  hn::StoreU(j, d, cost);
}

#if HWY_TARGET <= HWY_AVX3
/// Paths of 32 states in two registers.
void paths32(TrellisScratch& scratch, std::size_t count, std::int32_t* cost) {
  const hn::FixedTag<std::int32_t, 16> d;
  const Steps<16> low(32, 0), high(32, 16);
  const auto even0 = hn::LoadU(d, low.even), odd0 = hn::LoadU(d, low.odd);
  const auto even1 = hn::LoadU(d, high.even), odd1 = hn::LoadU(d, high.odd);
  const auto look = [](auto a, auto index, auto b) HWY_ATTR {
    return hn::VFromD<hn::FixedTag<std::int32_t, 16>>{_mm512_permutex2var_epi32(a.raw, index.raw, b.raw)};
  };
  auto j0 = hn::LoadU(d, cost), j1 = hn::LoadU(d, cost + 16);
  for (std::size_t i = 0; i < count; ++i) {
    const std::int32_t* c = scratch.costs.data() + 4 * i;
    const auto even_low = hn::Add(look(j0, even0, j1), hn::Set(d, c[0]));
    const auto odd_low = hn::Add(look(j0, odd0, j1), hn::Set(d, c[1]));
    const auto even_high = hn::Add(look(j0, even1, j1), hn::Set(d, c[2]));
    const auto odd_high = hn::Add(look(j0, odd1, j1), hn::Set(d, c[3]));
    scratch.odd[i] = bits_of(d, hn::Lt(odd_low, even_low)) | bits_of(d, hn::Lt(odd_high, even_high)) << 16;
    j0 = hn::Min(even_low, odd_low), j1 = hn::Min(even_high, odd_high);
    if (i % kLowerEvery == kLowerEvery - 1) {
      const auto least = hn::MinOfLanes(d, hn::Min(j0, j1));
      j0 = hn::Sub(j0, least), j1 = hn::Sub(j1, least);
    }
  }
  hn::StoreU(j0, d, cost), hn::StoreU(j1, d, cost + 16);
}
#endif

/// True when these vectors hold so many states; the costs of paths are then there, and their decisions in scratch.
bool find_paths(unsigned states, TrellisScratch& scratch, std::size_t count, std::int32_t* cost) {
#if HWY_TARGET <= HWY_AVX3
  if (states == 32) return paths32(scratch, count, cost), true;
  if (states == 16) return paths<16>(states, scratch, count, cost), true;
#endif
  if (states <= 8) return paths<8>(states, scratch, count, cost), true;
  return false;
}

/// Codes of whole vectors of weights, one state; returns how many weights those are.
std::size_t scalar_codes(const TrellisRates& rates, const TrellisRun& run, std::int32_t* codes, std::size_t count) {
  const Ints d;
  const hn::Rebind<std::uint8_t, Ints> d8;
  const hn::Rebind<std::uint16_t, Ints> d16;
  const std::int32_t* prices = rates.price[0][0].data();
  const V last = hn::Set(d, static_cast<std::int32_t>(kPricedMagnitudes) - 1);
  std::size_t i = 0;
  for (; i + hn::Lanes(d) <= count; i += hn::Lanes(d)) {
    const V target = hn::LoadU(d, run.target.data() + i), size = hn::Abs(target);
    const V spread = hn::PromoteTo(d, hn::LoadU(d8, run.spread.data() + i)), row = hn::ShiftLeft<7>(spread);
    const V raw = hn::GatherIndex(d, rates.raw.data(), spread);
    const V weight =
        run.weight.empty() ? hn::Set(d, kTrellisOne) : hn::PromoteTo(d, hn::LoadU(d16, run.weight.data() + i));
    const auto cost_of = [&](V m) HWY_ATTR {
      const V distance = hn::Sub(size, hn::ShiftLeft<8>(m));
      const V square = hn::ShiftRight<kSquareShift>(hn::Mul(hn::Mul(distance, distance), weight));
      return hn::Add(square, hn::GatherIndex(d, prices, hn::Add(row, hn::Min(hn::Shr(m, raw), last))));
    };
    const V m = hn::ShiftRight<8>(hn::Add(size, hn::Set(d, kTrellisOne / 2)));
    const V inner = hn::Max(hn::Sub(m, hn::Set(d, 1)), hn::Zero(d));
    const V best = hn::IfThenElse(hn::Lt(cost_of(m), cost_of(inner)), m, inner);
    hn::StoreU(hn::IfThenElse(hn::Lt(target, hn::Zero(d)), hn::Neg(best), best), d, codes + i);
  }
  return i;
}
#else  // vectors too short to pay
std::size_t branches(const TrellisRates&, const TrellisRun&, TrellisScratch&, std::size_t) { return 0; }
bool find_paths(unsigned, TrellisScratch&, std::size_t, std::int32_t*) { return false; }
std::size_t scalar_codes(const TrellisRates&, const TrellisRun&, std::int32_t*, std::size_t) { return 0; }
#endif

/// True when this instruction set searches so many states.
bool search(const TrellisRates& rates, const TrellisRun& run, TrellisScratch& scratch, std::int32_t* cost,
            std::size_t count) {
#if HWY_TARGET <= HWY_AVX2
  if (rates.states > (HWY_TARGET <= HWY_AVX3 ? 32U : 8U)) return false;
  for (std::size_t i = branches(rates, run, scratch, count); i < count; ++i) {
    const Branches rest = trellis_branches(rates, run.target[i], run.spread[i], weight_of(run, i));
    for (std::size_t b = 0; b < 4; ++b) {
      scratch.costs[4 * i + b] = rest.cost[b];
      scratch.codes[b * count + i] = rest.code[b];
    }
  }
  return find_paths(rates.states, scratch, count, cost);
#else
  (void)rates, (void)run, (void)scratch, (void)cost, (void)count, (void)branches, (void)find_paths;
  return false;
#endif
}

}  // namespace lmq::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lmq {
namespace {
HWY_EXPORT(search);
HWY_EXPORT(scalar_codes);
}  // namespace

unsigned trellis_search(const TrellisRates& rates, const TrellisRun& run, unsigned start, TrellisScratch& scratch,
                        std::span<std::int32_t> codes) noexcept {
  const std::size_t count = codes.size();
  if (baseline_forced() || count == 0) return trellis_search_reference(rates, run, start, scratch, codes);
  if (rates.states == 1) {
    const std::size_t done = HWY_DYNAMIC_DISPATCH(scalar_codes)(rates, run, codes.data(), count);
    for (std::size_t i = done; i < count; ++i)
      codes[i] = scalar_code(rates, run.target[i], run.spread[i], weight_of(run, i));
    return 0;
  }
  alignas(64) std::array<std::int32_t, kTrellisMaxStates> cost;
  cost.fill(kNoPath);
  for (unsigned s = start; s < (rates.states == 4 ? 8U : rates.states); s += rates.states) cost[s] = 0;
  if (!HWY_DYNAMIC_DISPATCH(search)(rates, run, scratch, cost.data(), count))
    return trellis_search_reference(rates, run, start, scratch, codes);
  return trace_back(rates.states, cost.data(), std::span(scratch.odd).first(count), codes,
                    [&](std::size_t i, unsigned branch) { return scratch.codes[branch * count + i]; });
}

}  // namespace lmq
#endif
