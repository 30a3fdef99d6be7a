#include "lmq/kernels/error.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "lmq/kernels/isa.hpp"
#include "lmq/kernels/widen.hpp"
#include "targets.hpp"
#include "unaligned.hpp"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "error.cpp"
// foreach_target must come before highway.h
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace lmq::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

constexpr std::size_t kLanes = 16;

/// Lanes of the running sums: [16] each, in memory between whole steps and the tail.
struct Lanes {
  alignas(64) double squared[kLanes] = {}, weighted[kLanes] = {}, energy[kLanes] = {}, largest[kLanes] = {};
  alignas(64) double weighted_energy[kLanes] = {};
};

// A target without vectors of double leaves everything to the tail.
#define LMQ_ERROR_VECTORS (HWY_TARGET != HWY_SCALAR && HWY_HAVE_FLOAT64)
#if LMQ_ERROR_VECTORS
constexpr std::size_t kWidth = HWY_LANES(float) < kLanes ? HWY_LANES(float) : kLanes;  // floats in a vector
constexpr std::size_t kParts = kLanes / kWidth;  // vectors in a step of 16 weights
using Floats = hn::CappedTag<float, kWidth>;
using Doubles = hn::Repartition<double, Floats>;
using FloatVec = hn::Vec<Floats>;
using DoubleVec = hn::Vec<Doubles>;

struct FromF32 {
  const float* weights;
  HWY_INLINE FloatVec operator()(std::size_t at) const { return hn::LoadU(Floats{}, weights + at); }
};
struct FromBf16 {
  const std::uint16_t* weights;
  HWY_INLINE FloatVec operator()(std::size_t at) const {
    const hn::RebindToUnsigned<Floats> d32;
    const hn::Rebind<std::uint16_t, Floats> d16;
    return hn::BitCast(Floats{}, hn::ShiftLeft<16>(hn::PromoteTo(d32, hn::LoadU(d16, weights + at))));
  }
};
struct FromValues {
  const float* values;
  HWY_INLINE FloatVec operator()(std::size_t at) const { return hn::LoadU(Floats{}, values + at); }
};
/// Up to kTables vectors of levels, looked up by the low bits of the code and chosen by the high ones.
template <std::size_t kTables>
struct FromCodes {
  const std::uint8_t* codes;
  FloatVec tables[kTables];
  HWY_INLINE FromCodes(const std::uint8_t* from, const float* levels) : codes(from) {
    for (std::size_t t = 0; t < kTables; ++t) tables[t] = hn::LoadU(Floats{}, levels + t * kWidth);
  }
  HWY_INLINE FloatVec operator()(std::size_t at) const {
    const Floats d;
    const hn::RebindToSigned<Floats> di;
    const hn::Rebind<std::uint8_t, Floats> d8;
    const auto code = hn::PromoteTo(di, hn::LoadU(d8, codes + at));
    const auto index = hn::IndicesFromVec(d, hn::And(code, hn::Set(di, static_cast<std::int32_t>(kWidth - 1))));
    FloatVec found = hn::TableLookupLanes(tables[0], index);
    for (std::size_t t = 1; t < kTables; ++t) {
      const auto here = hn::Gt(code, hn::Set(di, static_cast<std::int32_t>(t * kWidth - 1)));
      found = hn::IfThenElse(hn::RebindMask(d, here), hn::TableLookupLanes(tables[t], index), found);
    }
    return found;
  }
};
/// Many levels: one load each.
struct FromManyCodes {
  const std::uint8_t* codes;
  const float* levels;
  HWY_INLINE FloatVec operator()(std::size_t at) const {
    alignas(64) float found[kWidth];
    for (std::size_t lane = 0; lane < kWidth; ++lane) found[lane] = levels[codes[at + lane]];
    return hn::Load(Floats{}, found);
  }
};

template <bool kWeighted, class Weights, class Levels>
HWY_INLINE void sum_steps(const Weights& weight, const Levels& level, const float* importance, std::size_t steps,
                          Lanes& lanes) {
  const Doubles d;
  const hn::Half<Floats> half;
  constexpr std::size_t kHalf = kWidth / 2;
  DoubleVec squared[2 * kParts], weighted[2 * kParts], energy[2 * kParts], largest[2 * kParts];
  DoubleVec weighted_energy[2 * kParts];
  for (std::size_t k = 0; k < 2 * kParts; ++k)
    squared[k] = weighted[k] = energy[k] = largest[k] = weighted_energy[k] = hn::Zero(d);
  for (std::size_t step = 0; step < steps; ++step) {
    for (std::size_t part = 0; part < kParts; ++part) {
      const std::size_t at = step * kLanes + part * kWidth;
      const FloatVec w = weight(at), q = level(at);
      for (std::size_t h = 0; h < 2; ++h) {
        const auto of = [&](const FloatVec v) HWY_ATTR {
          return hn::PromoteTo(d, h == 0 ? hn::LowerHalf(half, v) : hn::UpperHalf(half, v));
        };
        const std::size_t k = 2 * part + h;
        const DoubleVec wide = of(w), error = hn::Sub(wide, of(q)), square = hn::Mul(error, error);
        squared[k] = hn::Add(squared[k], square);
        if constexpr (kWeighted) {
          const auto scale = hn::PromoteTo(d, hn::LoadU(half, importance + at + h * kHalf));
          weighted[k] = hn::Add(weighted[k], hn::Mul(scale, square));
          weighted_energy[k] = hn::Add(weighted_energy[k], hn::Mul(scale, hn::Mul(wide, wide)));
        }
        energy[k] = hn::Add(energy[k], hn::Mul(wide, wide));
        largest[k] = hn::Max(largest[k], hn::Abs(error));
      }
    }
  }
  for (std::size_t k = 0; k < 2 * kParts; ++k) {
    hn::StoreU(squared[k], d, lanes.squared + k * kHalf);
    hn::StoreU(weighted[k], d, lanes.weighted + k * kHalf);
    hn::StoreU(energy[k], d, lanes.energy + k * kHalf);
    hn::StoreU(largest[k], d, lanes.largest + k * kHalf);
    hn::StoreU(weighted_energy[k], d, lanes.weighted_energy + k * kHalf);
  }
}

template <class Levels>
HWY_INLINE void sum_weights(bool is_bf16, const std::byte* weights, const Levels& levels, const float* importance,
                            std::size_t steps, Lanes& lanes) {
  const FromBf16 bf16{reinterpret_cast<const std::uint16_t*>(weights)};
  const FromF32 f32{reinterpret_cast<const float*>(weights)};
  if (is_bf16)
    importance ? sum_steps<true>(bf16, levels, importance, steps, lanes)
               : sum_steps<false>(bf16, levels, importance, steps, lanes);
  else
    importance ? sum_steps<true>(f32, levels, importance, steps, lanes)
               : sum_steps<false>(f32, levels, importance, steps, lanes);
}

#endif  // LMQ_ERROR_VECTORS

/// The weights after the last whole step, and the sum over lanes. The same operations as a step's, one lane at a time.
template <class Weight, class Level>
HWY_INLINE ErrorSums finish(const Weight& weight, const Level& level, const float* importance, std::size_t begin,
                            std::size_t count, Lanes& lanes) {
  for (std::size_t i = begin; i < count; ++i) {
    const double wide = weight(i), error = wide - double{level(i)}, square = error * error;
    const std::size_t lane = i % kLanes;
    lanes.squared[lane] += square;
    if (importance) {
      lanes.weighted[lane] += double{importance[i]} * square;
      lanes.weighted_energy[lane] += double{importance[i]} * (wide * wide);
    }
    lanes.energy[lane] += wide * wide;
    lanes.largest[lane] = std::max(lanes.largest[lane], std::fabs(error));
  }
  ErrorSums sums;
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    sums.squared += lanes.squared[lane];
    sums.weighted += lanes.weighted[lane];
    sums.energy += lanes.energy[lane];
    sums.largest = std::max(sums.largest, lanes.largest[lane]);
    sums.weighted_energy += lanes.weighted_energy[lane];
  }
  if (!importance) sums.weighted = sums.squared, sums.weighted_energy = sums.energy;
  return sums;
}

float bf16_at(const std::byte* weights, std::size_t i) {
  const std::uint32_t wide = static_cast<std::uint32_t>(reinterpret_cast<const unaligned::u16*>(weights)[i]) << 16;
  float value;
  __builtin_memcpy(&value, &wide, sizeof value);
  return value;
}
}  // namespace

// weights: BF16 or F32. codes, or else values.
ErrorSums error_vector(bool is_bf16, const std::byte* weights, std::size_t count, const std::uint8_t* codes,
                       const float* levels, std::size_t level_count, const float* values, const float* importance) {
  Lanes lanes;
  std::size_t steps = 0;
#if LMQ_ERROR_VECTORS
  steps = count / kLanes;
  if (!codes)
    sum_weights(is_bf16, weights, FromValues{values}, importance, steps, lanes);
  else if (level_count <= kWidth)
    sum_weights(is_bf16, weights, FromCodes<1>(codes, levels), importance, steps, lanes);
  else if (level_count <= 2 * kWidth)
    sum_weights(is_bf16, weights, FromCodes<2>(codes, levels), importance, steps, lanes);
  else if (level_count <= 4 * kWidth)
    sum_weights(is_bf16, weights, FromCodes<4>(codes, levels), importance, steps, lanes);
  else
    sum_weights(is_bf16, weights, FromManyCodes{codes, levels}, importance, steps, lanes);
#else
  static_cast<void>(level_count);
#endif
  const unaligned::f32* f32 = reinterpret_cast<const unaligned::f32*>(weights);
  const auto weight = [&](std::size_t i) { return is_bf16 ? bf16_at(weights, i) : float{f32[i]}; };
  const auto level = [&](std::size_t i) { return codes ? levels[codes[i]] : values[i]; };
  return finish(weight, level, importance, steps * kLanes, count, lanes);
}
#undef LMQ_ERROR_VECTORS
}  // namespace lmq::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lmq {
namespace {
HWY_EXPORT(error_vector);

/// Weights as the vector kernel takes them: BF16 and F32 as they lie, others widened into `floats`.
struct Widened {
  bool is_bf16;
  const std::byte* weights;
};
Widened as_bf16_or_f32(DType type, std::span<const std::byte> weights, std::span<float> floats) noexcept {
  if (type == DType::bf16 || type == DType::f32) return {type == DType::bf16, weights.data()};
  widen(type, weights, floats);
  return {false, reinterpret_cast<const std::byte*>(floats.data())};
}
const float* pointer(std::span<const float> importance) noexcept {
  return importance.empty() ? nullptr : importance.data();
}
}  // namespace

LevelTable::LevelTable(std::span<const float> from) noexcept : levels{}, count(from.size()) {
  std::ranges::copy(from, levels);
}

ErrorSums error_of_codes(DType type, std::span<const std::byte> weights, std::span<const Code> codes,
                         const LevelTable& levels, std::span<const float> importance) noexcept {
  std::array<float, kErrorBlock> floats;
  if (baseline_forced()) {
    for (std::size_t i = 0; i < codes.size(); ++i) floats[i] = levels.levels[codes[i]];
    return reference::error_of_values(type, weights, std::span(floats).first(codes.size()), importance);
  }
  const Widened source = as_bf16_or_f32(type, weights, std::span(floats).first(codes.size()));
  return HWY_DYNAMIC_DISPATCH(error_vector)(source.is_bf16, source.weights, codes.size(), codes.data(), levels.levels,
                                            levels.count, nullptr, pointer(importance));
}

ErrorSums error_of_values(DType type, std::span<const std::byte> weights, std::span<const float> values,
                          std::span<const float> importance) noexcept {
  if (baseline_forced()) return reference::error_of_values(type, weights, values, importance);
  std::array<float, kErrorBlock> floats;
  const Widened source = as_bf16_or_f32(type, weights, std::span(floats).first(values.size()));
  return HWY_DYNAMIC_DISPATCH(error_vector)(source.is_bf16, source.weights, values.size(), nullptr, nullptr, 0,
                                            values.data(), pointer(importance));
}

namespace reference {

ErrorSums error_of_values(DType type, std::span<const std::byte> weights, std::span<const float> values,
                          std::span<const float> importance) noexcept {
  std::array<float, kErrorBlock> floats;
  reference::widen(type, weights, std::span(floats).first(values.size()));
  std::array<ErrorSums, 16> lanes{};
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double weight = floats[i], error = weight - double{values[i]};
    const double scale = importance.empty() ? 1.0 : double{importance[i]};
    lanes[i % 16].append(
        {error * error, scale * (error * error), weight * weight, std::fabs(error), scale * (weight * weight)});
  }
  ErrorSums sums;
  for (const ErrorSums& lane : lanes) sums.append(lane);
  return sums;
}

}  // namespace reference
}  // namespace lmq
#endif
