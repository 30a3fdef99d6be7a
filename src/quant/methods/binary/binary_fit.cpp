#include "binary_fit.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "lmq/kernels/binary_scan.hpp"
#include "lmq/kernels/sort_network.hpp"

namespace lmq {
namespace {

constexpr std::uint32_t kMagnitude = 0x7FFFFFFF;
constexpr double kCertain = 1e-13;  // gains this close, relatively, are equal: below what rounding of sums can tell

double magnitude_of(std::uint32_t pattern) { return std::bit_cast<float>(pattern); }

void make_room(Magnitudes& y, std::size_t count) {
  y.point.resize(count);
  y.low.clear(), y.high.clear();
  y.mass.resize(count + 1), y.sum.resize(count + 1);
  y.mass[0] = y.sum[0] = y.energy = 0;
}

void append(Magnitudes& y, std::size_t i, double value, double mass) {
  const double sum = mass * value;
  y.point[i] = value;
  y.mass[i + 1] = y.mass[i] + mass;
  y.sum[i + 1] = y.sum[i] + sum;
  y.energy += sum * value;
}

void take_keys(MagnitudeScratch& scratch, std::size_t count) {
  fill_up(scratch.keys, count);
  sort_network().keys(scratch.keys.data(), scratch.keys.size());
  Magnitudes& y = scratch.magnitudes;
  make_room(y, count);
  for (std::size_t i = 0; i < count; ++i) append(y, i, magnitude_of(static_cast<std::uint32_t>(scratch.keys[i])), 1.0);
}

void take_items(MagnitudeScratch& scratch, std::size_t count, std::span<const float> importance, double largest) {
  fill_up(scratch.items, count);
  sort_network().items(scratch.items.data(), scratch.items.size());
  Magnitudes& y = scratch.magnitudes;
  make_room(y, count);
  for (std::size_t i = 0; i < count; ++i) {
    const auto item = static_cast<std::uint64_t>(scratch.items[i]);
    const double mass = std::max(double{importance[static_cast<std::uint32_t>(item)]}, largest * kMinWeight);
    append(y, i, magnitude_of(static_cast<std::uint32_t>(item >> 32)), mass);
  }
}

/// Of the values for which `wanted(value)`.
template <class Wanted>
const Magnitudes& sort_wanted(std::span<const float> values, std::span<const float> importance, const Wanted& wanted,
                              MagnitudeScratch& scratch) {
  const float largest = importance.empty() ? 0.0f : *std::ranges::max_element(importance);
  std::size_t count = 0;
  if (!(largest > 0)) {
    scratch.keys.resize(values.size());
    for (const float value : values)
      if (wanted(value))
        scratch.keys[count++] = static_cast<std::int32_t>(std::bit_cast<std::uint32_t>(value) & kMagnitude);
    take_keys(scratch, count);
    return scratch.magnitudes;
  }
  scratch.items.resize(values.size());
  for (std::size_t i = 0; i < values.size(); ++i)
    if (wanted(values[i]))
      scratch.items[count++] =
          static_cast<std::int64_t>((std::uint64_t{std::bit_cast<std::uint32_t>(values[i]) & kMagnitude} << 32) | i);
  take_items(scratch, count, importance, largest);
  return scratch.magnitudes;
}

/// One bin of a group as magnitudes.
struct FoldedBin {
  double low, high, mass, sum;
  std::uint32_t bin;
};

std::vector<FoldedBin> folded_bins(const Group& group, Side side) {
  std::vector<FoldedBin> bins;
  for (std::size_t j = 0; j < group.size(); ++j) {
    const bool negative = group.low[j] < 0;
    if (side != Side::both && negative != (side == Side::negative)) continue;
    const double low = negative ? -double{group.high[j]} : double{group.low[j]};
    const double high = negative ? -double{group.low[j]} : double{group.high[j]};
    const double mean = negative ? -group.mean[j] : group.mean[j];
    bins.push_back({low + 0.0, high, group.mass[j], group.mass[j] * mean, static_cast<std::uint32_t>(j)});
  }
  std::ranges::stable_sort(bins, [](const FoldedBin& a, const FoldedBin& b) { return a.low < b.low; });
  return bins;
}

std::vector<std::uint32_t> open_points(const Magnitudes& y, double best, const auto& gain) {
  std::vector<std::uint32_t> open;
  if (y.low.empty()) return open;
  for (std::size_t i = 0; i < y.size(); ++i) {
    if (!(y.low[i] < y.high[i])) continue;
    const double mass = y.mass[i + 1] - y.mass[i], sum = y.sum[i + 1] - y.sum[i];
    const double lower = std::clamp((mass * y.high[i] - sum) / (y.high[i] - y.low[i]), 0.0, mass);
    if (gain(y.mass[i] + lower, y.sum[i] + lower * y.low[i]) > best * (1 + kCertain))
      open.push_back(static_cast<std::uint32_t>(i));
  }
  return open;
}

}  // namespace

const Magnitudes& sorted_magnitudes(std::span<const float> values, std::span<const float> importance,
                                    MagnitudeScratch& scratch) {
  return sort_wanted(
      values, importance, [](float) { return true; }, scratch);
}

const Magnitudes& sorted_side(std::span<const float> values, std::span<const float> importance, bool negative,
                              MagnitudeScratch& scratch) {
  return sort_wanted(
      values, importance, [&](float value) { return (value < 0) == negative; }, scratch);
}

FoldedGroup fold(const Group& group, Side side) {
  FoldedGroup folded;
  Magnitudes& y = folded.magnitudes;
  std::vector<double> mass, sum;
  for (const FoldedBin& bin : folded_bins(group, side)) {
    if (!y.low.empty() && bin.low <= y.high.back()) {
      y.high.back() = std::max(y.high.back(), bin.high);
      mass.back() += bin.mass, sum.back() += bin.sum;
    } else {
      y.low.push_back(bin.low), y.high.push_back(bin.high);
      mass.push_back(bin.mass), sum.push_back(bin.sum);
      folded.members.push_back(static_cast<std::uint32_t>(folded.bins.size()));
    }
    folded.bins.push_back(bin.bin);
  }
  folded.members.push_back(static_cast<std::uint32_t>(folded.bins.size()));
  const std::vector<double> low = y.low, high = y.high;
  make_room(y, mass.size());
  y.low = low, y.high = high;
  for (std::size_t i = 0; i < mass.size(); ++i)
    append(y, i, low[i] == high[i] ? low[i] : std::clamp(sum[i] / mass[i], low[i], high[i]), mass[i]);
  return folded;
}

double one_bit(const Magnitudes& y) { return y.size() == 0 ? 0 : y.sum.back() / y.mass.back(); }

TwoMeans two_means(const Magnitudes& y) {
  const std::size_t m = y.size();
  if (m == 0) return {};
  const Split split = binary_scans().two_means(y.mass.data(), y.sum.data(), m);
  if (split.index == 0) return {one_bit(y), one_bit(y)};
  const double mass = y.mass[split.index], sum = y.sum[split.index];
  return {sum / mass, (y.sum[m] - sum) / (y.mass[m] - mass)};
}

double top_mean(const Magnitudes& y) {
  const std::size_t m = y.size();
  if (m == 0) return 0;
  const Split split = binary_scans().top_mean(y.mass.data(), y.sum.data(), m);
  return (y.sum[m] - y.sum[split.index]) / (y.mass[m] - y.mass[split.index]);
}

std::vector<std::uint32_t> open_two_means(const Magnitudes& y) {
  if (y.size() == 0) return {};
  const double best = binary_scans().two_means(y.mass.data(), y.sum.data(), y.size()).gain;
  const double whole = y.mass.back(), mean = y.sum.back() / whole;
  return open_points(y, best, [&](double mass, double sum) {
    const double d = sum - mass * mean, rest = mass * (whole - mass);
    return rest > 0 ? d * d / rest : 0.0;
  });
}

std::vector<std::uint32_t> open_top_mean(const Magnitudes& y) {
  if (y.size() == 0) return {};
  const double best = binary_scans().top_mean(y.mass.data(), y.sum.data(), y.size()).gain;
  return open_points(y, best, [&](double mass, double sum) {
    const double d = y.sum.back() - sum, rest = y.mass.back() - mass;
    return rest > 0 ? d * d / rest : 0.0;
  });
}

}  // namespace lmq
