#include "lmq/quant/value_histogram.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

#include "histogram_count.hpp"
#include "lmq/base/error.hpp"

namespace lmq {
namespace {
using Bin = ValueHistogram::Bin;
using Wide = unsigned __int128;

std::uint32_t last_key(const Bin& bin) noexcept { return bin.key + ((std::uint32_t{1} << bin.span_bits) - 1); }

bool before(const Bin& a, const Bin& b) noexcept { return a.layer != b.layer ? a.layer < b.layer : a.key < b.key; }

void add(Bin& to, const Bin& bin) noexcept {
  to.count += bin.count, to.mass += bin.mass;
  to.first += bin.first, to.second += bin.second;
}

/// All layers in one. Bins of different layers are the same or disjoint.
std::vector<Bin> fold_layers(std::span<const Bin> bins) {
  std::vector<Bin> folded(bins.begin(), bins.end());
  for (Bin& bin : folded) bin.layer = 0;
  std::ranges::sort(folded, {}, &Bin::key);
  std::size_t last = 0;
  for (std::size_t j = 1; j < folded.size(); ++j) {
    if (folded[j].key == folded[last].key)
      add(folded[last], folded[j]);
    else
      folded[++last] = folded[j];
  }
  folded.resize(folded.empty() ? 0 : last + 1);
  return folded;
}

/// Value of one step of a key inside a bin: one unit in the last place of its exponent.
double step_of(std::uint32_t key) noexcept {
  const std::uint32_t field = std::bit_cast<std::uint32_t>(from_ordered_key(key)) >> 23 & 0xFF;
  return std::ldexp(1.0, static_cast<int>(field > 0 ? field : 1) - 150);
}

/// Mean and scatter of a bin, from exact integers: with first = q * mass + r,
/// sum s (offset - q)^2 = second - q * (first + r), and the scatter is that minus r^2 / mass. No product exceeds 2^127
/// as long as the sum of all steps stays below 2^62.
struct Spread {
  double mean = 0, scatter = 0;
  bool one_value = false;
  std::uint32_t key = 0;  // of the value, when there is one
};
Spread spread_of(const Bin& bin) noexcept {
  const double base = from_ordered_key(bin.key), step = step_of(bin.key);
  const Wide q = bin.first / bin.mass, r = bin.first % bin.mass;
  const Wide about_q = bin.second - q * (bin.first + r);
  Spread spread;
  spread.mean = base + static_cast<double>(bin.first) / static_cast<double>(bin.mass) * step;
  spread.one_value = about_q == 0;
  spread.key = bin.key + static_cast<std::uint32_t>(q);
  const double steps2 = static_cast<double>(about_q) - static_cast<double>(r * r) / static_cast<double>(bin.mass);
  spread.scatter = spread.one_value ? 0.0 : std::max(steps2, 0.0) * step * step;
  return spread;
}

Group group_of(std::span<const Bin> bins, double quantum, std::uint32_t minimum_key, std::uint32_t maximum_key) {
  Group group;
  for (auto* column : {&group.low, &group.high}) column->reserve(bins.size());
  for (auto* column : {&group.count, &group.mass, &group.mean, &group.scatter}) column->reserve(bins.size());
  for (const Bin& bin : bins) {
    const bool single = bin.span_bits == 0;
    const Spread spread = single ? Spread{from_ordered_key(bin.key), 0, true, bin.key} : spread_of(bin);
    // The last key of the bin below zero belongs to no float: its last value is the one before.
    const std::uint32_t last = last_key(bin) - (last_key(bin) == 0x7FFFFFFFu);
    group.low.push_back(from_ordered_key(spread.one_value ? spread.key : std::max(bin.key, minimum_key)));
    group.high.push_back(from_ordered_key(spread.one_value ? spread.key : std::min(last, maximum_key)));
    group.count.push_back(static_cast<double>(bin.count));
    group.mass.push_back(static_cast<double>(bin.mass) * quantum);
    group.mean.push_back(spread.mean);
    group.scatter.push_back(spread.scatter * quantum);
  }
  if (!bins.empty()) group.minimum = from_ordered_key(minimum_key), group.maximum = from_ordered_key(maximum_key);
  return group;
}
}  // namespace

void merge_bins(std::vector<Bin>& bins, std::span<const Bin> other) {
  if (other.empty()) return;
  if (bins.empty()) return bins.assign(other.begin(), other.end());
  std::vector<Bin> merged;
  merged.reserve(bins.size() + other.size());
  auto a = bins.cbegin();
  auto b = other.begin();
  while (a != bins.cend() || b != other.end()) {
    if (b == other.end() || (a != bins.cend() && before(*a, *b))) {
      merged.push_back(*a++);
    } else if (a == bins.cend() || before(*b, *a)) {
      merged.push_back(*b++);
    } else {
      if (a->span_bits != b->span_bits) fail(Errc::internal, "histograms of different resolution cannot be merged");
      merged.push_back(*a++);
      add(merged.back(), *b++);
    }
    if (merged.size() > 1 && merged[merged.size() - 2].layer == merged.back().layer &&
        last_key(merged[merged.size() - 2]) >= merged.back().key)
      fail(Errc::internal, "histograms of different resolution cannot be merged");
  }
  bins.swap(merged);
}

ValueHistogram ValueHistogram::of(const TensorView& view, const Importance& importance,
                                  std::span<const KeyRange> ranges, bool layered) {
  Counted counted =
      ranges.empty() ? count_all(view, importance, layered) : count_ranges(view, importance, ranges, layered);
  ValueHistogram histogram;
  histogram.bins_ = std::move(counted.bins);
  histogram.nonfinite_ = counted.nonfinite;
  histogram.minimum_key_ = counted.minimum_key;
  histogram.maximum_key_ = counted.maximum_key;
  return histogram;
}

void ValueHistogram::merge(const ValueHistogram& other) {
  merge_bins(bins_, other.bins_);
  nonfinite_ += other.nonfinite_;
  minimum_key_ = std::min(minimum_key_, other.minimum_key_);
  maximum_key_ = std::max(maximum_key_, other.maximum_key_);
}

void ValueHistogram::refine(const ValueHistogram& finer, std::span<const KeyRange> ranges) {
  auto range = ranges.begin();
  std::uint16_t layer = 0;
  const auto replaced = [&](const Bin& bin) {
    if (bin.layer != layer) range = ranges.begin(), layer = bin.layer;
    while (range != ranges.end() && range->end < bin.key) ++range;
    return range != ranges.end() && range->begin <= last_key(bin);
  };
  std::erase_if(bins_, replaced);
  merge_bins(bins_, finer.bins_);
}

Group ValueHistogram::group(double quantum) const {
  if (bins_.empty() || bins_.front().layer == bins_.back().layer)
    return group_of(bins_, quantum, minimum_key_, maximum_key_);
  Group group = group_of(fold_layers(bins_), quantum, minimum_key_, maximum_key_);
  for (auto first = bins_.begin(); first != bins_.end();) {
    const auto last = std::find_if(first, bins_.end(), [&](const Bin& bin) { return bin.layer != first->layer; });
    group.layers.push_back(
        {layer_importance(first->layer, quantum), group_of({first, last}, quantum, minimum_key_, maximum_key_)});
    first = last;
  }
  return group;
}

std::uint64_t ValueHistogram::count() const noexcept {
  std::uint64_t sum = 0;
  for (const Bin& bin : bins_) sum += bin.count;
  return sum;
}

std::uint64_t expected_bins(DType dtype, std::size_t levels) noexcept {
  if (bits(dtype) <= 8) return 256;
  if (dtype == DType::bf16) return std::uint64_t{1} << 13;
  if (dtype == DType::f16) return std::uint64_t{1} << 16;
  // Normal weights, 2^22 to 2^26 of them; the first look at other distributions has up to 2^16 bins.
  if (levels <= 4) return std::uint64_t{1} << 14;
  return 250'000 + 1'000 * std::min<std::uint64_t>(levels, 256);
}

}  // namespace lmq
