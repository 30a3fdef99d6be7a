// Counting inside key ranges: what falls into them is a few per cent of the weights, so it is gathered and sorted.
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include "lmq/base/error.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/kernels/keys.hpp"
#include "lmq/kernels/widen.hpp"
#include "pool.hpp"
#include "steps.hpp"
#include "tally_count.hpp"

namespace lmq {
namespace {
using Bin = Tally::Bin;
using Wide = unsigned __int128;

constexpr std::size_t kTask = std::size_t{1} << 16;  // weights a worker takes at once
constexpr std::size_t kBlock = 4096;                 // weights widened at once

struct Hit {
  std::uint32_t key;
  std::uint64_t steps;
};
std::uint32_t key_of(std::uint32_t hit) noexcept { return hit; }
std::uint32_t key_of(const Hit& hit) noexcept { return hit.key; }
std::uint64_t steps_of(std::uint32_t) noexcept { return 1; }
std::uint64_t steps_of(const Hit& hit) noexcept { return hit.steps; }

struct HitScratch {
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

/// Ascending by key: four passes by byte, those that would change nothing left out.
template <class T>
void sort_by_key(std::vector<T>& items, std::vector<T>& other) {
  other.resize(items.size());
  std::array<std::array<std::size_t, 256>, 4> counts{};
  for (const T& item : items)
    for (unsigned pass = 0; pass < 4; ++pass) ++counts[pass][key_of(item) >> (8 * pass) & 0xFF];
  for (unsigned pass = 0; pass < 4; ++pass) {
    auto& places = counts[pass];
    if (std::ranges::find(places, items.size()) != places.end()) continue;
    std::size_t sum = 0;
    for (std::size_t& place : places) sum += std::exchange(place, sum);
    for (const T& item : items) other[places[key_of(item) >> (8 * pass) & 0xFF]++] = item;
    items.swap(other);
  }
}

/// Adds sorted hits; those in no range are dropped.
template <class T>
void add_hits(const std::vector<T>& hits, std::span<const KeyRange> ranges, Counted& counted) {
  std::vector<Bin> bins;
  auto range = ranges.begin();
  for (const T& hit : hits) {
    const std::uint32_t key = key_of(hit);
    while (range != ranges.end() && range->end < key) ++range;
    if (range == ranges.end()) break;
    if (key < range->begin) continue;
    counted.minimum_key = std::min(counted.minimum_key, key);
    counted.maximum_key = std::max(counted.maximum_key, key);
    const std::uint32_t first = key >> range->span_bits << range->span_bits;
    if (bins.empty() || bins.back().key != first || bins.back().span_bits != range->span_bits)
      bins.push_back({first, range->span_bits, 0, 0, 0, 0});
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
void gather(std::span<const float> floats, std::span<const std::uint64_t> steps, const KeyFilter& filter,
            std::vector<Hit>& hits) {
  for (std::size_t i = 0; i < floats.size(); ++i) {
    const std::uint32_t key = float_key(floats[i]);
    if (filter[key >> 21] >> (key >> 16) % 32 & 1) hits.push_back({key, steps[i]});
  }
}

void gather_task(const TensorView& view, const Importance& importance, const KeyFilter& filter, std::size_t begin,
                 std::size_t count, HitScratch& scratch) {
  const std::size_t size = bits(view.dtype) / 8;
  std::array<float, kBlock> floats, weights;
  std::array<std::uint64_t, kBlock> steps;
  const bool weighted = importance.kind != Importance::Kind::none;
  if (!weighted && view.dtype == DType::f32) {
    const std::byte* bytes = view.bytes.data() + begin * size;
    for (std::size_t at = 0; at < count; at += kBlock)
      gather(bytes + at * size, std::min(kBlock, count - at), filter, scratch.keys);
    return;
  }
  for (std::size_t at = begin; at < begin + count; at += kBlock) {
    const std::size_t n = std::min(kBlock, begin + count - at);
    widen(view.dtype, view.bytes.subspan(at * size, n * size), std::span(floats).first(n));
    if (!weighted) {
      gather(std::as_bytes(std::span(floats)).data(), n, filter, scratch.keys);
      continue;
    }
    importance_at(importance, at, std::span(weights).first(n));
    importance_steps(std::span(weights).first(n), importance.quantum, std::span(steps).first(n));
    gather(std::span(floats).first(n), std::span(steps).first(n), filter, scratch.hits);
  }
}

void check_ranges(std::span<const KeyRange> ranges) {
  for (std::size_t r = 0; r < ranges.size(); ++r)
    if (ranges[r].span_bits > 16 || ranges[r].end < ranges[r].begin || (r > 0 && ranges[r].begin <= ranges[r - 1].end))
      fail(Errc::internal, "ranges to look closer at are not ascending, or wider than 2^16 keys a bin");
}
}  // namespace

Counted count_ranges(const TensorView& view, const Importance& importance, std::span<const KeyRange> ranges) {
  check_ranges(ranges);
  const KeyFilter filter = filter_of(ranges);
  PerWorker<HitScratch> scratch(pool(), thread_count());
  parallel_for_worker((view.count + kTask - 1) / kTask, [&](std::size_t task, std::size_t worker) {
    const std::size_t begin = task * kTask;
    gather_task(view, importance, filter, begin, std::min(kTask, view.count - begin), scratch[worker]);
  });
  Counted counted;
  scratch.finish([&](HitScratch& one) {
    sort_by_key(one.keys, one.sorted_keys);
    sort_by_key(one.hits, one.sorted_hits);
    add_hits(one.keys, ranges, counted);
    add_hits(one.hits, ranges, counted);
    one.keys.clear(), one.hits.clear();
  });
  return counted;
}

}  // namespace lmq
