#include "lmq/kernels/widen.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "lmq/kernels/isa.hpp"
#include "small_float.hpp"
#include "targets.hpp"
#include "unaligned.hpp"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "widen.cpp"
// foreach_target must come before highway.h
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

// Plain integer loops, compiled once per instruction set; the compiler makes vectors of them. No float here is ever
// subnormal, so flush-to-zero modes change nothing.
HWY_BEFORE_NAMESPACE();
namespace lmq::HWY_NAMESPACE {
namespace {
void widen_bf16(const unaligned::u16* __restrict in, std::size_t count, unaligned::u32* __restrict out) noexcept {
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t wide = static_cast<std::uint32_t>(in[i]) << 16;
    out[i] = (wide & 0x7FFFFFFFu) > 0x7F800000u ? wide | 0x400000u : wide;  // NaNs become quiet
  }
}

void widen_f16(const unaligned::u16* __restrict in, std::size_t count, unaligned::u32* __restrict out) noexcept {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::ScalableTag<std::int32_t> d;
  const hn::Repartition<float, decltype(d)> df;
  const hn::Rebind<std::uint16_t, decltype(d)> d16;
  const auto widened = [&](const auto patterns) HWY_ATTR {
    const auto wide = hn::PromoteTo(d, patterns);
    const auto magnitude = hn::And(wide, hn::Set(d, 0x7FFF)), sign = hn::ShiftLeft<16>(hn::Xor(wide, magnitude));
    const auto infinite = hn::Set(d, 0x7C00), quiet = hn::Set(d, 0x400000), zero = hn::Zero(d);
    const auto rebias = hn::IfThenElse(hn::Gt(infinite, magnitude), hn::Set(d, 112 << 23), hn::Set(d, 224 << 23));
    const auto normal =
        hn::Or(hn::Add(hn::ShiftLeft<13>(magnitude), rebias), hn::IfThenElse(hn::Gt(magnitude, infinite), quiet, zero));
    const auto tiny = hn::BitCast(d, hn::Mul(hn::ConvertTo(df, magnitude), hn::Set(df, 0x1p-24f)));
    return hn::Or(sign, hn::IfThenElse(hn::Gt(hn::Set(d, 0x400), magnitude), tiny, normal));
  };
  const auto* from = reinterpret_cast<const std::uint16_t*>(in);
  auto* to = reinterpret_cast<std::int32_t*>(out);
  const std::size_t lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) hn::StoreU(widened(hn::LoadU(d16, from + i)), d, to + i);
  for (; i < count; ++i) out[i] = static_cast<std::uint32_t>(hn::GetLane(widened(hn::Set(d16, std::uint16_t{in[i]}))));
}

void widen_f8(const float* __restrict table, const std::uint8_t* __restrict in, std::size_t count,
              float* __restrict out) noexcept {
  for (std::size_t i = 0; i < count; ++i) out[i] = table[in[i]];
}

void widen_f64(const unaligned::f64* __restrict in, std::size_t count, float* __restrict out) noexcept {
  for (std::size_t i = 0; i < count; ++i) out[i] = static_cast<float>(in[i]);
}

void narrow_bf16(const unaligned::u32* __restrict in, std::size_t count, unaligned::u16* __restrict out) noexcept {
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t nan = (in[i] >> 16) | 0x40u;
    const std::uint32_t rounded = (in[i] + 0x7FFFu + ((in[i] >> 16) & 1u)) >> 16;
    out[i] = static_cast<std::uint16_t>((in[i] & 0x7FFFFFFFu) > 0x7F800000u ? nan : rounded);
  }
}

// Types with a narrower exponent. Normal: subtract the difference of the biases, round by adding half. Subnormal:
// adding 2^(24 - bias - mantissa), whose last bit is worth the smallest subnormal, makes the adder round.
template <class Out, int kMantissa, int kBias>
void narrow_small(const unaligned::u32* __restrict in, std::size_t count, std::byte* __restrict out,
                  std::uint32_t sign_bit, std::uint32_t largest, std::uint32_t infinity, std::uint32_t nan,
                  bool unsigned_zero) noexcept {
  constexpr int kDrop = 23 - kMantissa;
  constexpr std::uint32_t kRebias = static_cast<std::uint32_t>(127 - kBias) << 23;
  constexpr std::uint32_t kSmallestNormal = static_cast<std::uint32_t>(128 - kBias) << 23;
  constexpr std::uint32_t kMagic = static_cast<std::uint32_t>(127 + 24 - kBias - kMantissa) << 23;
  constexpr std::uint32_t kHalf = (1u << (kDrop - 1)) - 1;
  const std::uint32_t payload_mask = sign_bit == 0x8000u ? 0x7FFFFFu : 0u;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t magnitude = in[i] & 0x7FFFFFFFu;
    const std::uint32_t sign = in[i] >> 31 ? sign_bit : 0u;
    const std::uint32_t normal = (magnitude - kRebias + kHalf + ((magnitude >> kDrop) & 1u)) >> kDrop;
    // A float below the smallest normal of a float counts as 0 here, with or without flush-to-zero.
    const std::uint32_t tiny_in = magnitude < 0x00800000u ? 0u : magnitude;
    float tiny, magic;
    const std::uint32_t magic_bits = kMagic;
    __builtin_memcpy(&tiny, &tiny_in, sizeof tiny);
    __builtin_memcpy(&magic, &magic_bits, sizeof magic);
    const float sum = tiny + magic;
    std::uint32_t sum_bits;
    __builtin_memcpy(&sum_bits, &sum, sizeof sum);
    std::uint32_t value = magnitude < kSmallestNormal ? sum_bits - kMagic : normal;
    value = value > largest || magnitude >= 0x7F800000u ? infinity : value;
    const std::uint32_t as_nan = sign | nan | (in[i] & payload_mask) >> kDrop;
    const std::uint32_t zero_sign = unsigned_zero && value == 0 ? 0u : sign;
    const auto narrowed = static_cast<Out>(magnitude > 0x7F800000u ? as_nan : zero_sign | value);
    __builtin_memcpy(out + i * sizeof(Out), &narrowed, sizeof narrowed);
  }
}

template <class Out, int kMantissa, int kBias>
void narrow_as(const SmallFloat& type, const float* in, std::size_t count, std::byte* out) noexcept {
  narrow_small<Out, kMantissa, kBias>(reinterpret_cast<const unaligned::u32*>(in), count, out, type.sign, type.largest,
                                      type.infinity, type.nan, type.unsigned_zero);
}

/// True when any magnitude (pattern without sign) is at least `limit`.
template <class T>
bool any_at_least(const std::byte* in, std::size_t count, T limit) noexcept {
  constexpr T kMagnitude = static_cast<T>(~T{0}) >> 1;
  T found = 0;
  for (std::size_t i = 0; i < count; ++i) {
    T pattern;
    __builtin_memcpy(&pattern, in + i * sizeof(T), sizeof(T));
    found |= static_cast<T>((pattern & kMagnitude) >= limit ? ~T{0} : T{0});
  }
  return found != 0;
}

bool any_equal8(const std::uint8_t* in, std::size_t count, std::uint8_t value) noexcept {
  std::uint8_t found = 0;
  for (std::size_t i = 0; i < count; ++i) found |= static_cast<std::uint8_t>(in[i] == value ? 0xFF : 0);
  return found != 0;
}
}  // namespace

void widen_vector(DType type, const float* table, const std::byte* in, std::size_t count, float* out) {
  auto* bits_out = reinterpret_cast<unaligned::u32*>(out);
  switch (type) {
    case DType::bf16:
      return widen_bf16(reinterpret_cast<const unaligned::u16*>(in), count, bits_out);
    case DType::f16:
      return widen_f16(reinterpret_cast<const unaligned::u16*>(in), count, bits_out);
    case DType::f64:
      return widen_f64(reinterpret_cast<const unaligned::f64*>(in), count, out);
    default:
      return widen_f8(table, reinterpret_cast<const std::uint8_t*>(in), count, out);
  }
}

void narrow_vector(DType type, const float* in, std::size_t count, std::byte* out) {
  const SmallFloat& small = *small_float(type);
  switch (type) {
    case DType::bf16:
      return narrow_bf16(reinterpret_cast<const unaligned::u32*>(in), count, reinterpret_cast<unaligned::u16*>(out));
    case DType::f16:
      return narrow_as<std::uint16_t, 10, 15>(small, in, count, out);
    case DType::f8_e4m3:
      return narrow_as<std::uint8_t, 3, 7>(small, in, count, out);
    case DType::f8_e5m2:
      return narrow_as<std::uint8_t, 2, 15>(small, in, count, out);
    case DType::f8_e4m3fnuz:
      return narrow_as<std::uint8_t, 3, 8>(small, in, count, out);
    default:
      return narrow_as<std::uint8_t, 2, 16>(small, in, count, out);
  }
}

bool any_nonfinite(DType type, const std::byte* in, std::size_t count) {
  switch (type) {
    case DType::bf16:
      return any_at_least<std::uint16_t>(in, count, 0x7F80);
    case DType::f16:
      return any_at_least<std::uint16_t>(in, count, 0x7C00);
    case DType::f32:
      return any_at_least<std::uint32_t>(in, count, 0x7F800000u);
    // From 2^128 - 2^103 on, a double rounds to an infinite float.
    case DType::f64:
      return any_at_least<std::uint64_t>(in, count, 0x47EFFFFFF0000000u);
    case DType::f8_e4m3:
      return any_at_least<std::uint8_t>(in, count, 0x7F);
    case DType::f8_e5m2:
      return any_at_least<std::uint8_t>(in, count, 0x7C);
    default:
      return any_equal8(reinterpret_cast<const std::uint8_t*>(in), count, 0x80);
  }
}
}  // namespace lmq::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lmq {
namespace {
HWY_EXPORT(widen_vector);
HWY_EXPORT(narrow_vector);
HWY_EXPORT(any_nonfinite);

/// The 256 values of an 8-bit type, computed once.
const float* table_of(DType type) noexcept {
  static const auto tables = [] {
    std::array<std::array<float, 256>, 4> made{};
    const std::array types{DType::f8_e4m3, DType::f8_e5m2, DType::f8_e4m3fnuz, DType::f8_e5m2fnuz};
    for (std::size_t t = 0; t < types.size(); ++t)
      for (std::size_t p = 0; p < 256; ++p) made[t][p] = widen_pattern(types[t], static_cast<std::uint16_t>(p));
    return made;
  }();
  switch (type) {
    case DType::f8_e4m3:
      return tables[0].data();
    case DType::f8_e5m2:
      return tables[1].data();
    case DType::f8_e4m3fnuz:
      return tables[2].data();
    case DType::f8_e5m2fnuz:
      return tables[3].data();
    default:
      return nullptr;
  }
}
}  // namespace

void widen(DType type, std::span<const std::byte> bytes, std::span<float> floats) noexcept {
  if (baseline_forced() || type == DType::f32) return reference::widen(type, bytes, floats);
  HWY_DYNAMIC_DISPATCH(widen_vector)(type, table_of(type), bytes.data(), floats.size(), floats.data());
}

void narrow_to(DType type, std::span<const float> floats, std::span<std::byte> bytes) noexcept {
  if (baseline_forced() || type == DType::f32 || type == DType::f64) return reference::narrow_to(type, floats, bytes);
  HWY_DYNAMIC_DISPATCH(narrow_vector)(type, floats.data(), floats.size(), bytes.data());
}

std::optional<std::size_t> find_nonfinite(DType type, std::span<const std::byte> bytes) noexcept {
  if (baseline_forced()) return reference::find_nonfinite(type, bytes);
  const std::size_t size = bits(type) / 8;
  constexpr std::size_t kBlock = 4096;
  for (std::size_t begin = 0; begin < bytes.size(); begin += kBlock * size) {
    const auto block = bytes.subspan(begin, std::min(kBlock * size, bytes.size() - begin));
    if (!HWY_DYNAMIC_DISPATCH(any_nonfinite)(type, block.data(), block.size() / size)) continue;
    return begin / size + reference::find_nonfinite(type, block).value();
  }
  return std::nullopt;
}

}  // namespace lmq
#endif
