// Counting inside key ranges. Where they cut the line into few slots, each has its sums; else what falls into the
// ranges is gathered and sorted.
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include "core/steps.hpp"
#include "histogram_window.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/base/pool.hpp"
#include "lmq/kernels/keys.hpp"
#include "lmq/kernels/widen.hpp"

namespace lmq {
namespace {
using Bin = ValueHistogram::Bin;
using Wide = unsigned __int128;

constexpr std::size_t kTask = kCountTask, kBlock = kCountBlock;

struct Hit {
  std::uint32_t key;
  std::uint32_t layer;
  std::uint64_t steps;
};
std::uint32_t key_of(std::uint32_t hit) noexcept { return hit; }
std::uint32_t key_of(const Hit& hit) noexcept { return hit.key; }
std::uint16_t layer_of(std::uint32_t) noexcept { return 0; }
std::uint16_t layer_of(const Hit& hit) noexcept { return static_cast<std::uint16_t>(hit.layer); }
std::uint64_t steps_of(std::uint32_t) noexcept { return 1; }
std::uint64_t steps_of(const Hit& hit) noexcept { return hit.steps; }

/// Sums of the weights in 2^shift keys of one block of 2^16.
struct Slot {
  std::uint64_t count = 0, first = 0, second = 0;
};
constexpr std::size_t kMaxSlots = std::size_t{1} << 19;

/// Where the slots of a block begin, and their width; no slots unless the filter has the block.
struct SlotBlock {
  std::uint32_t begin = 0, shift = 0;
};
/// The slots of all blocks that ranges touch: as narrow as the narrowest bins asked for in the block, or as the
/// ranges' ends demand.
struct SlotMap {
  std::vector<SlotBlock> blocks;  // [65536]
  std::size_t slots = 0;          // may be more than kMaxSlots: then there is no use in them
};

struct HitScratch {
  std::vector<Slot> slots;
  std::vector<std::uint32_t> keys, sorted_keys;
  std::vector<Hit> hits, sorted_hits;
};
Pool<HitScratch>& pool() {
  static Pool<HitScratch> scratch;
  return scratch;
}

/// Which upper halves of keys any range touches.
KeyFilter filter_of(std::span<const KeyRange> ranges) {
  KeyFilter filter{};
  for (const KeyRange& range : ranges)
    for (std::uint32_t upper = range.begin >> 16; upper <= range.end >> 16; ++upper)
      filter[upper / 32] |= std::uint32_t{1} << upper % 32;
  return filter;
}

SlotMap map_slots(std::span<const KeyRange> ranges, const KeyFilter& filter) {
  SlotMap map{std::vector<SlotBlock>(std::size_t{1} << 16, {0, 16}), 0};
  const auto narrow_to = [&](std::uint32_t edge, std::uint32_t upper) {  // a slot begins at `edge`, in or after a block
    SlotBlock& block = map.blocks[upper];
    block.shift = std::min(block.shift, static_cast<std::uint32_t>(std::countr_zero(edge | 0x10000u)));
  };
  for (const KeyRange& range : ranges) {
    narrow_to(range.begin, range.begin >> 16);
    narrow_to(range.end + 1, range.end >> 16);
    for (std::uint32_t upper = range.begin >> 16; upper <= range.end >> 16; ++upper)
      map.blocks[upper].shift = std::min(map.blocks[upper].shift, range.span_bits);
  }
  for (std::uint32_t upper = 0; upper < map.blocks.size(); ++upper) {
    if ((filter[upper / 32] >> upper % 32 & 1) == 0) continue;
    map.blocks[upper].begin = static_cast<std::uint32_t>(map.slots);
    map.slots += std::size_t{1} << (16 - map.blocks[upper].shift);
    if (map.slots > kMaxSlots) break;
  }
  return map;
}

/// Adds the keys of blocks that ranges touch.
void add_keys(std::span<const std::uint32_t> keys, const SlotMap& map, std::vector<Slot>& slots) {
  for (const std::uint32_t key : keys) {
    const SlotBlock block = map.blocks[key >> 16];
    Slot& slot = slots[block.begin + ((key & 0xFFFFu) >> block.shift)];
    const std::uint64_t offset = key & ((std::uint32_t{1} << block.shift) - 1);
    ++slot.count;
    slot.first += offset;
    slot.second += offset * offset;
  }
}

Bin empty_bin(std::uint32_t key, const KeyRange& range, std::uint16_t layer) noexcept {
  return {key, static_cast<std::uint16_t>(range.span_bits), layer, 0, 0, 0, 0};
}

/// The slots inside ranges as bins; leaves all slots zero.
void drain_slots(std::vector<Slot>& slots, const SlotMap& map, std::span<const KeyRange> ranges,
                 std::vector<Bin>& bins) {
  bins.reserve(static_cast<std::size_t>(std::ranges::count_if(slots, [](const Slot& slot) { return slot.count > 0; })));
  for (const KeyRange& range : ranges)
    for (std::uint64_t key = range.begin; key <= range.end;) {
      const SlotBlock block = map.blocks[key >> 16];
      const Slot& slot = slots[block.begin + ((key & 0xFFFFu) >> block.shift)];
      const auto first = static_cast<std::uint32_t>(key >> range.span_bits << range.span_bits);
      if (slot.count > 0) {
        if (bins.empty() || bins.back().key != first) bins.push_back(empty_bin(first, range, 0));
        Bin& bin = bins.back();
        const std::uint64_t shift = key - first;  // from the bin's first key to the slot's
        bin.count += slot.count;
        bin.mass += slot.count;
        bin.first += slot.first + Wide{slot.count} * shift;
        bin.second += slot.second + Wide{slot.first} * (2 * shift) + Wide{slot.count} * (shift * shift);
      }
      key += std::uint64_t{1} << block.shift;
    }
  std::ranges::fill(slots, Slot{});
}

/// Ascending by layer, then key: a pass by each byte, those that would change nothing left out.
template <class T>
void sort_by_key(std::vector<T>& items, std::vector<T>& other) {
  other.resize(items.size());
  const auto byte = [](const T& item, unsigned pass) {
    return (std::uint64_t{layer_of(item)} << 32 | key_of(item)) >> (8 * pass) & 0xFF;
  };
  constexpr unsigned kPasses = 5;
  std::array<std::array<std::size_t, 256>, kPasses> counts{};
  for (const T& item : items)
    for (unsigned pass = 0; pass < kPasses; ++pass) ++counts[pass][byte(item, pass)];
  for (unsigned pass = 0; pass < kPasses; ++pass) {
    auto& places = counts[pass];
    if (std::ranges::find(places, items.size()) != places.end()) continue;
    std::size_t sum = 0;
    for (std::size_t& place : places) sum += std::exchange(place, sum);
    for (const T& item : items) other[places[byte(item, pass)]++] = item;
    items.swap(other);
  }
}

/// Adds sorted hits; those in no range are dropped.
template <class T>
void add_hits(const std::vector<T>& hits, std::span<const KeyRange> ranges, Counted& counted) {
  std::vector<Bin> bins;
  auto range = ranges.begin();
  std::uint16_t layer = 0;
  for (const T& hit : hits) {
    const std::uint32_t key = key_of(hit);
    if (layer_of(hit) != layer) range = ranges.begin(), layer = layer_of(hit);
    while (range != ranges.end() && range->end < key) ++range;
    if (range == ranges.end() || key < range->begin) continue;
    const std::uint32_t first = key >> range->span_bits << range->span_bits;
    if (bins.empty() || bins.back().layer != layer || bins.back().key != first ||
        bins.back().span_bits != range->span_bits)
      bins.push_back(empty_bin(first, *range, layer));
    Bin& bin = bins.back();
    const std::uint64_t offset = key - first;
    ++bin.count;
    bin.mass += steps_of(hit);
    bin.first += Wide{steps_of(hit)} * offset;
    bin.second += Wide{steps_of(hit)} * (offset * offset);
  }
  merge_bins(counted.bins, bins);
}

/// Appends the keys of a block that a range may hold.
void gather(const std::byte* floats, std::size_t count, const KeyFilter& filter, std::vector<std::uint32_t>& keys) {
  const std::size_t old = keys.size();
  keys.resize(old + count + kFilterSlack);
  keys.resize(old + filter_keys(floats, count, filter, keys.data() + old));
}

/// The same with their steps.
void gather(std::span<const float> floats, std::span<const std::uint64_t> steps, const KeyFilter& filter, bool layered,
            std::vector<Hit>& hits) {
  for (std::size_t i = 0; i < floats.size(); ++i) {
    const std::uint32_t key = float_key(floats[i]);
    if ((filter[key >> 21] >> (key >> 16) % 32 & 1) == 0) continue;
    hits.push_back({key, layered ? static_cast<std::uint32_t>(lmq::layer_of(steps[i])) : 0, steps[i]});
  }
}

/// What one task finds, in slots when there is a map.
// More than 5 parameters: a part of a window, what is looked for and how, and a scratch.
void gather_task(const TensorView& view, const Importance& importance, const KeyFilter& filter, const SlotMap* map,
                 bool layered, std::size_t begin, std::size_t count, HitScratch& scratch) {
  const std::size_t size = bits(view.dtype) / 8;
  std::array<float, kBlock> floats, weights;
  std::array<std::uint64_t, kBlock> steps;
  const bool weighted = importance.kind != Importance::Kind::none;
  const auto take = [&](const std::byte* bytes, std::size_t n) {
    gather(bytes, n, filter, scratch.keys);
    if (map == nullptr) return;
    add_keys(scratch.keys, *map, scratch.slots);
    scratch.keys.clear();
  };
  if (map != nullptr && scratch.slots.size() < map->slots) scratch.slots.resize(map->slots);
  if (!weighted && view.dtype == DType::f32) {
    const std::byte* bytes = view.bytes.data() + begin * size;
    for (std::size_t at = 0; at < count; at += kBlock) take(bytes + at * size, std::min(kBlock, count - at));
    return;
  }
  for (std::size_t at = begin; at < begin + count; at += kBlock) {
    const std::size_t n = std::min(kBlock, begin + count - at);
    widen(view.dtype, view.bytes.subspan(at * size, n * size), std::span(floats).first(n));
    if (!weighted) {
      take(std::as_bytes(std::span(floats)).data(), n);
      continue;
    }
    importance_at(importance, at, std::span(weights).first(n));
    importance_steps(std::span(weights).first(n), importance.quantum, std::span(steps).first(n));
    gather(std::span(floats).first(n), std::span(steps).first(n), filter, layered, scratch.hits);
  }
}

void check_ranges(std::span<const KeyRange> ranges) {
  for (std::size_t r = 0; r < ranges.size(); ++r)
    if (ranges[r].span_bits > 16 || ranges[r].end < ranges[r].begin || (r > 0 && ranges[r].begin <= ranges[r - 1].end))
      fail(Errc::internal, "ranges to look closer at are not ascending, or wider than 2^16 keys a bin");
}
}  // namespace

Counted count_ranges(const TensorView& view, const Importance& importance, std::span<const KeyRange> ranges,
                     bool layered) {
  check_ranges(ranges);
  const KeyFilter filter = filter_of(ranges);
  const SlotMap map = map_slots(ranges, filter);
  const bool dense = map.slots <= kMaxSlots && importance.kind == Importance::Kind::none;
  PerWorker<HitScratch> scratch(pool(), thread_count());
  parallel_for_worker((view.count + kTask - 1) / kTask, [&](std::size_t task, std::size_t worker) {
    const std::size_t begin = task * kTask;
    gather_task(view, importance, filter, dense ? &map : nullptr, layered, begin, std::min(kTask, view.count - begin),
                scratch[worker]);
  });
  Counted counted;
  scratch.finish([&](HitScratch& one) {
    if (dense) {
      std::vector<Bin> bins;
      drain_slots(one.slots, map, ranges, bins);
      merge_bins(counted.bins, bins);
      return;
    }
    sort_by_key(one.keys, one.sorted_keys);
    sort_by_key(one.hits, one.sorted_hits);
    add_hits(one.keys, ranges, counted);
    add_hits(one.hits, ranges, counted);
    one.keys.clear(), one.hits.clear();
  });
  if (counted.bins.empty()) return counted;
  for (const Bin& bin : counted.bins) {
    counted.minimum_key = std::min(counted.minimum_key, bin.key);
    counted.maximum_key = std::max(counted.maximum_key, bin.key + ((std::uint32_t{1} << bin.span_bits) - 1));
  }
  if (counted.maximum_key == 0x7FFFFFFFu) --counted.maximum_key;  // the key of no float
  return counted;
}

}  // namespace lmq
