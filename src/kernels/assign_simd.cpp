#include "assign_simd.hpp"

#include "lmq/kernels/keys.hpp"
#include "targets.hpp"
#include "unaligned.hpp"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "assign_simd.cpp"
// foreach_target must come before highway.h
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace lmq::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// counts + 1 where the mask is set: by masked addition where masks are registers, else by subtracting the mask's -1.
template <class D, class M>
HWY_INLINE hn::Vec<D> count_if(D d, hn::Vec<D> counts, M mask) {
#if HWY_TARGET <= HWY_AVX3
  return hn::IfThenElse(mask, hn::Add(counts, hn::Set(d, 1)), counts);
#else
  return hn::Sub(counts, hn::VecFromMask(d, mask));
#endif
}

// Four vectors at once, so that each threshold is loaded once for all of them.
void count16(const std::byte* bytes, std::size_t count, const std::int16_t* thresholds, std::size_t levels,
             std::uint8_t* codes) {
  const hn::ScalableTag<std::int16_t> d;
  const hn::Rebind<std::uint8_t, decltype(d)> d8;
  const std::size_t lanes = hn::Lanes(d);
  const auto* in = reinterpret_cast<const std::int16_t*>(bytes);
  const auto magnitude = hn::Set(d, 0x7FFF);
  const auto key = [&](std::size_t at) HWY_ATTR {
    const auto pattern = hn::LoadU(d, in + at);
    return hn::Xor(pattern, hn::And(hn::ShiftRight<15>(pattern), magnitude));
  };
  std::size_t i = 0;
  for (; i + 4 * lanes <= count; i += 4 * lanes) {
    const auto k0 = key(i), k1 = key(i + lanes), k2 = key(i + 2 * lanes), k3 = key(i + 3 * lanes);
    auto n0 = hn::Zero(d), n1 = n0, n2 = n0, n3 = n0;
    for (std::size_t k = 0; k < levels; ++k) {
      const auto threshold = hn::Set(d, thresholds[k]);
      n0 = count_if(d, n0, hn::Gt(k0, threshold));
      n1 = count_if(d, n1, hn::Gt(k1, threshold));
      n2 = count_if(d, n2, hn::Gt(k2, threshold));
      n3 = count_if(d, n3, hn::Gt(k3, threshold));
    }
    hn::StoreU(hn::DemoteTo(d8, n0), d8, codes + i);
    hn::StoreU(hn::DemoteTo(d8, n1), d8, codes + i + lanes);
    hn::StoreU(hn::DemoteTo(d8, n2), d8, codes + i + 2 * lanes);
    hn::StoreU(hn::DemoteTo(d8, n3), d8, codes + i + 3 * lanes);
  }
  const unaligned::u16* tail = reinterpret_cast<const unaligned::u16*>(bytes);
  for (; i < count; ++i) {
    const auto pattern = static_cast<std::int16_t>(tail[i]);
    const auto signed_key = static_cast<std::int16_t>(pattern ^ ((pattern >> 15) & 0x7FFF));
    unsigned below = 0;
    for (std::size_t k = 0; k < levels; ++k) below += signed_key > thresholds[k];
    codes[i] = static_cast<std::uint8_t>(below);
  }
}

void count32(const std::byte* bytes, std::size_t count, const float* boundaries, std::size_t levels,
             std::uint8_t* codes) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> di;
  const hn::Rebind<std::uint8_t, decltype(d)> d8;
  const std::size_t lanes = hn::Lanes(d);
  const auto* in = reinterpret_cast<const float*>(bytes);
  std::size_t i = 0;
  for (; i + 4 * lanes <= count; i += 4 * lanes) {
    const auto v0 = hn::LoadU(d, in + i), v1 = hn::LoadU(d, in + i + lanes);
    const auto v2 = hn::LoadU(d, in + i + 2 * lanes), v3 = hn::LoadU(d, in + i + 3 * lanes);
    auto n0 = hn::Zero(di), n1 = n0, n2 = n0, n3 = n0;
    for (std::size_t k = 0; k < levels; ++k) {
      const auto boundary = hn::Set(d, boundaries[k]);
      n0 = count_if(di, n0, hn::RebindMask(di, hn::Ge(v0, boundary)));
      n1 = count_if(di, n1, hn::RebindMask(di, hn::Ge(v1, boundary)));
      n2 = count_if(di, n2, hn::RebindMask(di, hn::Ge(v2, boundary)));
      n3 = count_if(di, n3, hn::RebindMask(di, hn::Ge(v3, boundary)));
    }
    hn::StoreU(hn::DemoteTo(d8, n0), d8, codes + i);
    hn::StoreU(hn::DemoteTo(d8, n1), d8, codes + i + lanes);
    hn::StoreU(hn::DemoteTo(d8, n2), d8, codes + i + 2 * lanes);
    hn::StoreU(hn::DemoteTo(d8, n3), d8, codes + i + 3 * lanes);
  }
  const unaligned::f32* tail = reinterpret_cast<const unaligned::f32*>(bytes);
  for (; i < count; ++i) {
    unsigned at_least = 0;
    for (std::size_t k = 0; k < levels; ++k) at_least += tail[i] >= boundaries[k];
    codes[i] = static_cast<std::uint8_t>(at_least);
  }
}
}  // namespace lmq::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lmq {
namespace {
HWY_EXPORT(count16);
HWY_EXPORT(count32);
}  // namespace

void count_thresholds16(const std::byte* in, std::size_t count, const std::int16_t* thresholds, std::size_t levels,
                        std::uint8_t* codes) noexcept {
  HWY_DYNAMIC_DISPATCH(count16)(in, count, thresholds, levels, codes);
}

void count_boundaries32(const std::byte* in, std::size_t count, const float* boundaries, std::size_t levels,
                        std::uint8_t* codes) noexcept {
  HWY_DYNAMIC_DISPATCH(count32)(in, count, boundaries, levels, codes);
}

}  // namespace lmq
#endif
