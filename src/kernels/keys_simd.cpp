// Loops over float keys: filtering, and sums by the upper half.
#include <algorithm>
#include <array>
#include <bit>

#include "lmq/kernels/isa.hpp"
#include "lmq/kernels/keys.hpp"
#include "moments.hpp"
#include "targets.hpp"
#include "unaligned.hpp"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "keys_simd.cpp"
// foreach_target must come before highway.h
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace lmq::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;
using Words = hn::ScalableTag<std::uint32_t>;

/// float_key of patterns.
template <class V>
HWY_INLINE V keys_of(V patterns) {
  const Words d;
  const hn::RebindToSigned<Words> di;
  const auto top = hn::Set(d, 0x80000000u);
  const auto negative = hn::BitCast(d, hn::ShiftRight<31>(hn::BitCast(di, patterns)));
  const auto key = hn::Xor(patterns, hn::Or(negative, top));
  return hn::IfThenElse(hn::Eq(patterns, top), top, key);
}
}  // namespace

std::size_t filter_vector(const std::byte* floats, std::size_t count, const std::uint32_t* filter,
                          std::uint32_t* keys) {
  const Words d;
  const hn::RebindToSigned<Words> di;
  const std::size_t lanes = hn::Lanes(d);
  const auto* patterns = reinterpret_cast<const std::uint32_t*>(floats);
  const auto one = hn::Set(d, 1), low = hn::Set(d, 31);
  std::uint32_t* out = keys;
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto key = keys_of(hn::LoadU(d, patterns + i));
    const auto word = hn::GatherIndex(d, filter, hn::BitCast(di, hn::ShiftRight<21>(key)));
    const auto wanted = hn::TestBit(word, hn::Shl(one, hn::And(hn::ShiftRight<16>(key), low)));
    hn::StoreU(hn::Compress(key, wanted), d, out);
    out += hn::CountTrue(d, wanted);
  }
  for (; i < count; ++i) {
    const std::uint32_t pattern = reinterpret_cast<const unaligned::u32*>(floats)[i];
    const std::uint32_t key = pattern == 0x80000000u ? pattern : pattern >> 31 ? ~pattern : pattern | 0x80000000u;
    *out = key;
    out += filter[key >> 21] >> (key >> 16) % 32 & 1;
  }
  return static_cast<std::size_t>(out - keys);
}

#if HWY_TARGET != HWY_SCALAR
namespace {
using Longs = hn::Repartition<std::uint64_t, Words>;
constexpr std::size_t kBlock = 256;                       // floats prepared at once
constexpr std::size_t kLanes = HWY_LANES(std::uint32_t);  // of a vector
constexpr std::uint64_t kOne = std::uint64_t{1} << 40;    // a count of 1 in MomentHistogram::Cell::packed

/// {packed, offset^2} of kLanes / 2 offsets: the pairs of even lanes, then those of odd ones.
template <class V>
HWY_INLINE void store_pairs(V offsets, std::uint64_t* to) {
  const Longs d64;
  const auto packed = hn::Add(offsets, hn::Set(d64, kOne));
  const auto square = hn::MulEven(hn::BitCast(Words{}, offsets), hn::BitCast(Words{}, offsets));
  hn::Store(hn::InterleaveLower(d64, packed, square), d64, to);
  hn::Store(hn::InterleaveUpper(d64, packed, square), d64, to + kLanes / 2);
}

/// One 128-bit addition for each float of a block.
HWY_INLINE void add_pairs(const std::uint32_t* keys, const std::uint64_t* pairs, MomentHistogram::Cell* cells) {
  const hn::Full128<std::uint64_t> pair;
  const auto add = [&](std::uint32_t key, const std::uint64_t* from) HWY_ATTR {
    auto* cell = reinterpret_cast<std::uint64_t*>(cells + (key >> 16));
    hn::StoreU(hn::Add(hn::LoadU(pair, cell), hn::Load(pair, from)), pair, cell);
  };
  for (std::size_t j = 0; j < kBlock; j += kLanes / 2) {
    const std::uint64_t* even = pairs + 2 * j;
    const std::uint64_t* odd = even + kLanes / 2;
    for (std::size_t k = 0; k < kLanes / 2; k += 2) add(keys[j + k], even + k), add(keys[j + k + 1], odd + k);
  }
}
}  // namespace
#endif

// Per block: keys, counts and squares by vectors; then one addition for each float. Extremes over all floats, finite or
// not.
void moments_vector(const std::byte* floats, std::size_t count, MomentHistogram::Cell* cells, std::uint32_t* lowest,
                    std::uint32_t* highest) {
  std::size_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const Words d;
  const hn::Half<Words> half;
  alignas(64) std::uint64_t pairs[2 * kBlock];
  alignas(64) std::uint32_t keys[kBlock];
  const auto* patterns = reinterpret_cast<const std::uint32_t*>(floats);
  auto least = hn::Set(d, 0xFFFFFFFFu), most = hn::Zero(d);
  for (; i + kBlock <= count; i += kBlock) {
    for (std::size_t j = 0; j < kBlock; j += kLanes) {
      const auto key = keys_of(hn::LoadU(d, patterns + i + j)), offset = hn::And(key, hn::Set(d, 0xFFFFu));
      least = hn::Min(least, key), most = hn::Max(most, key);
      hn::Store(key, d, keys + j);
      store_pairs(hn::PromoteTo(Longs{}, hn::LowerHalf(half, offset)), pairs + 2 * j);
      store_pairs(hn::PromoteTo(Longs{}, hn::UpperHalf(half, offset)), pairs + 2 * j + kLanes);
    }
    add_pairs(keys, pairs, cells);
  }
  *lowest = hn::GetLane(hn::MinOfLanes(d, least));
  *highest = hn::GetLane(hn::MaxOfLanes(d, most));
#endif
  const KeyExtremes rest = add_moments_plainly(floats + 4 * i, count - i, cells);
  *lowest = rest.lowest < *lowest ? rest.lowest : *lowest;
  *highest = rest.highest > *highest ? rest.highest : *highest;
}
}  // namespace lmq::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lmq {
namespace {
HWY_EXPORT(filter_vector);
HWY_EXPORT(moments_vector);

constexpr std::uint32_t kLowestKey = 0x00800000u, kHighestKey = 0xFF7FFFFFu;  // of finite floats

KeyExtremes finite_extremes(const std::byte* floats, std::size_t count) noexcept {
  KeyExtremes extremes;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t pattern = reinterpret_cast<const unaligned::u32*>(floats)[i];
    const std::uint32_t key = float_key(std::bit_cast<float>(pattern));
    if (!finite_pattern(pattern)) continue;
    extremes.lowest = std::min(extremes.lowest, key);
    extremes.highest = std::max(extremes.highest, key);
  }
  return extremes;
}
}  // namespace

KeyExtremes add_moments_plainly(const std::byte* floats, std::size_t count, MomentHistogram::Cell* cells) noexcept {
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t key =
        float_key(std::bit_cast<float>(std::uint32_t{reinterpret_cast<const unaligned::u32*>(floats)[i]}));
    const std::uint64_t offset = key & 0xFFFFu;
    cells[key >> 16].packed += offset + (std::uint64_t{1} << 40);
    cells[key >> 16].second += offset * offset;
  }
  return finite_extremes(floats, count);
}

KeyExtremes add_moments_vector(const std::byte* floats, std::size_t count, MomentHistogram::Cell* cells) noexcept {
  KeyExtremes extremes;
  HWY_DYNAMIC_DISPATCH(moments_vector)(floats, count, cells, &extremes.lowest, &extremes.highest);
  const bool finite = extremes.lowest >= kLowestKey && extremes.highest <= kHighestKey;
  return finite ? extremes : finite_extremes(floats, count);
}

std::size_t filter_keys(const std::byte* floats, std::size_t count, const KeyFilter& filter,
                        std::uint32_t* keys) noexcept {
  if (baseline_forced()) return reference::filter_keys(floats, count, filter, keys);
  return HWY_DYNAMIC_DISPATCH(filter_vector)(floats, count, filter.data(), keys);
}

namespace reference {
std::size_t filter_keys(const std::byte* floats, std::size_t count, const KeyFilter& filter,
                        std::uint32_t* keys) noexcept {
  std::size_t found = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t key =
        float_key(std::bit_cast<float>(std::uint32_t{reinterpret_cast<const unaligned::u32*>(floats)[i]}));
    if (filter[key >> 21] >> (key >> 16) % 32 & 1) keys[found++] = key;
  }
  return found;
}
}  // namespace reference
}  // namespace lmq
#endif
