// Lanes of u32 that take 16-bit words in ascending order; included once per instruction set.
#if defined(LMQ_LANE_WORDS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef LMQ_LANE_WORDS_INL
#undef LMQ_LANE_WORDS_INL
#else
#define LMQ_LANE_WORDS_INL
#endif

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace lmq::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET <= HWY_AVX2
using Lanes = hn::ScalableTag<std::uint32_t>;
using Signed = hn::RebindToSigned<Lanes>;
using Words = hn::Rebind<std::uint16_t, Lanes>;
using Bytes = hn::Rebind<std::uint8_t, Lanes>;
using V = hn::Vec<Lanes>;
using M = hn::Mask<Lanes>;
constexpr std::size_t kWidth = HWY_TARGET <= HWY_AVX3 ? 16 : 8;

#if HWY_TARGET <= HWY_AVX3
/// Consecutive elements from the front of v to the lanes of m.
HWY_INLINE V expand(V v, M m) { return V{_mm512_maskz_expand_epi32(m.raw, v.raw)}; }
HWY_INLINE std::size_t count(M m) { return static_cast<std::size_t>(__builtin_popcount(m.raw)); }
HWY_INLINE M at_least(V a, V b) { return M{_mm512_cmpge_epu32_mask(a.raw, b.raw)}; }
#else
/// Lane i of row m: how many of the lanes before i are in the mask m.
struct ExpandRows {
  constexpr ExpandRows() {
    for (unsigned m = 0; m < 256; ++m)
      for (unsigned i = 0, before = 0; i < 8; before += m >> i & 1, ++i) row[m][i] = static_cast<std::uint8_t>(before);
  }
  std::uint8_t row[256][8]{};
};
constexpr ExpandRows kExpand;
HWY_INLINE unsigned mask_bits(M m) {
  return static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(hn::VecFromMask(Lanes(), m).raw)));
}
HWY_INLINE M at_least(V a, V b) { return hn::Max(a, b) == a; }
HWY_INLINE V expand(V v, M m) {
  const V row = hn::PromoteTo(Lanes(), hn::LoadU(Bytes(), kExpand.row[mask_bits(m)]));
  return V{_mm256_permutevar8x32_epi32(v.raw, row.raw)};
}
HWY_INLINE std::size_t count(M m) { return static_cast<std::size_t>(__builtin_popcount(mask_bits(m))); }
#endif

HWY_INLINE V gather(const std::uint32_t* table, V index) {
  return hn::GatherIndex(Lanes(), table, hn::BitCast(Signed(), index));
}
#endif

}  // namespace
}  // namespace lmq::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
