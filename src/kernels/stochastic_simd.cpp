#include "stochastic_simd.hpp"

#include "lmq/base/random.hpp"
#include "lmq/kernels/isa.hpp"
#include "targets.hpp"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "stochastic_simd.cpp"
// foreach_target must come before highway.h
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace lmq::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET != HWY_SCALAR
namespace {
using Longs = hn::ScalableTag<std::uint64_t>;

// Lower 64 bits of a * constant, where the machine multiplies 32 bits at a time.
template <class V>
HWY_INLINE V multiply(V a, std::uint64_t constant) {
  const Longs d;
#if HWY_TARGET <= HWY_AVX3
  return hn::Mul(a, hn::Set(d, constant));
#else
  const hn::Repartition<std::uint32_t, Longs> d32;
  const auto low = hn::BitCast(d32, hn::Set(d, constant & 0xFFFFFFFFu)),
             high = hn::BitCast(d32, hn::Set(d, constant >> 32));
  const auto a32 = hn::BitCast(d32, a), upper = hn::BitCast(d32, hn::ShiftRight<32>(a));
  const auto cross = hn::Add(hn::MulEven(upper, low), hn::MulEven(a32, high));
  return hn::Add(hn::MulEven(a32, low), hn::ShiftLeft<32>(cross));
#endif
}

template <class V>
HWY_INLINE V mix(V x) {
  x = multiply(hn::Xor(x, hn::ShiftRight<30>(x)), 0xBF58476D1CE4E5B9u);
  x = multiply(hn::Xor(x, hn::ShiftRight<27>(x)), 0x94D049BB133111EBu);
  return hn::Xor(x, hn::ShiftRight<31>(x));
}
}  // namespace
#endif

void draws(std::uint64_t key, std::uint64_t first, std::size_t count, std::uint32_t* out) {
  std::size_t i = 0;
  for (; i < count && (first + i) % 2 != 0; ++i) out[i] = draw32(key, first + i);
#if HWY_TARGET != HWY_SCALAR
  // Two draws are the halves of one mixed counter, the lower one first: little-endian vectors store them so.
  const Longs d;
  const hn::Repartition<std::uint32_t, Longs> d32;
  const std::size_t lanes = hn::Lanes(d);
  const auto step = hn::Set(d, kDrawStep * lanes);
  auto counter = hn::Add(hn::Set(d, key + kDrawStep * ((first + i) / 2 + 1)), multiply(hn::Iota(d, 0), kDrawStep));
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
    hn::StoreU(hn::BitCast(d32, mix(counter)), d32, out + i);
    counter = hn::Add(counter, step);
  }
#endif
  for (; i < count; ++i) out[i] = draw32(key, first + i);
}

void round_up(const float* weights, const std::uint32_t* draw, std::size_t count, const double* low,
              const double* scale, std::uint8_t* codes) {
  std::size_t i = 0;
#if HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_SSSE3 && HWY_TARGET != HWY_SSE4
  const hn::ScalableTag<double> d;
  const hn::RebindToSigned<decltype(d)> di;
  const hn::Rebind<float, decltype(d)> d32;
  const hn::Rebind<std::uint32_t, decltype(d)> du;
  const hn::Rebind<std::uint8_t, decltype(d)> d8;
  const std::size_t lanes = hn::Lanes(d);
  const auto magic = hn::Set(di, 0x4330000000000000);  // 2^52: adding a number below 2^52 puts it into the mantissa
  const auto two52 = hn::Set(d, 0x1p52);
  for (; i + lanes <= count; i += lanes) {
    const auto code = hn::BitCast(
        di, hn::PromoteTo(hn::RebindToUnsigned<decltype(di)>{}, hn::PromoteTo(du, hn::LoadU(d8, codes + i))));
    const auto place = hn::Mul(hn::Sub(hn::PromoteTo(d, hn::LoadU(d32, weights + i)), hn::GatherIndex(d, low, code)),
                               hn::GatherIndex(d, scale, code));
    const auto bits = hn::BitCast(di, hn::PromoteTo(hn::RebindToUnsigned<decltype(di)>{}, hn::LoadU(du, draw + i)));
    const auto number = hn::Sub(hn::BitCast(d, hn::Or(bits, magic)), two52);
    const auto up = hn::VecFromMask(di, hn::RebindMask(di, hn::Lt(number, place)));  // -1 where up
    const auto next = hn::BitCast(hn::RebindToUnsigned<decltype(di)>{}, hn::Sub(code, up));
    hn::StoreU(hn::U8FromU32(hn::TruncateTo(du, next)), d8, codes + i);
  }
#endif
  for (; i < count; ++i)
    codes[i] =
        static_cast<std::uint8_t>(codes[i] + (static_cast<double>(draw[i]) <
                                              (static_cast<double>(weights[i]) - low[codes[i]]) * scale[codes[i]]));
}
}  // namespace lmq::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lmq {
namespace {
HWY_EXPORT(draws);
HWY_EXPORT(round_up);
}  // namespace

void draws_vector(std::uint64_t key, std::uint64_t first, std::size_t count, std::uint32_t* out) noexcept {
  HWY_DYNAMIC_DISPATCH(draws)(key, first, count, out);
}

void round_up_vector(const float* weights, const std::uint32_t* draw, std::size_t count, const double* low,
                     const double* scale, std::uint8_t* codes) noexcept {
  HWY_DYNAMIC_DISPATCH(round_up)(weights, draw, count, low, scale, codes);
}

}  // namespace lmq
#endif
