#pragma once
#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "histogram_count.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/kernels/keys.hpp"
#include "lmq/kernels/widen.hpp"

namespace lmq {

inline constexpr std::size_t kPatterns = 65536;
inline constexpr std::size_t kCountTask = std::size_t{1} << 16;  // weights a worker takes at once
inline constexpr std::size_t kCountBlock = 4096;                 // weights widened at once

/// A window that is counted.
struct CountWindow {
  const TensorView& view;
  const Importance& importance;
  std::size_t size;  // bytes of a weight

  [[nodiscard]] std::span<const std::byte> bytes(std::size_t begin, std::size_t count) const {
    return view.bytes.subspan(begin * size, count * size);
  }
};

/// Calls body(begin, count, worker) for the tasks of a window, in parallel.
template <class Body>
void each_task(std::size_t count, const Body& body) {
  parallel_for_worker((count + kCountTask - 1) / kCountTask, [&](std::size_t task, std::size_t worker) {
    const std::size_t begin = task * kCountTask;
    body(begin, std::min(kCountTask, count - begin), worker);
  });
}

/// Calls body(block's begin, floats) for the blocks of a task.
template <class Body>
void each_float_block(const CountWindow& window, std::size_t begin, std::size_t count, const Body& body) {
  std::array<float, kCountBlock> floats;
  for (std::size_t at = begin; at < begin + count; at += kCountBlock) {
    const auto block = std::span(floats).first(std::min(kCountBlock, begin + count - at));
    widen(window.view.dtype, window.bytes(at, block.size()), block);
    body(at, std::span<const float>(block));
  }
}

/// Appends the bins of one layer of an 8- or 16-bit type: `used` are its patterns that occur, of ascending values;
/// sums_of(pattern) gives count and mass. Both zeros are one bin; what is not finite is counted out.
template <class SumsOf>
void add_pattern_bins(DType type, std::span<const std::uint16_t> used, std::uint16_t layer, const SumsOf& sums_of,
                      Counted& counted) {
  const std::size_t size = bits(type) / 8, first = counted.bins.size();
  std::vector<std::byte> packed(used.size() * size);
  for (std::size_t j = 0; j < used.size(); ++j) std::memcpy(packed.data() + j * size, &used[j], size);
  std::vector<float> values(used.size());
  widen(type, packed, values);
  for (std::size_t j = 0; j < used.size(); ++j) {
    const std::uint32_t key = float_key(values[j]);
    const auto sums = sums_of(used[j]);
    if (!finite_pattern(std::bit_cast<std::uint32_t>(values[j]))) {
      counted.nonfinite += sums.count;
    } else if (counted.bins.size() > first && counted.bins.back().key == key) {
      counted.bins.back().count += sums.count;
      counted.bins.back().mass += sums.mass;
    } else {
      counted.bins.push_back({key, 0, layer, sums.count, sums.mass, 0, 0});
      counted.minimum_key = std::min(counted.minimum_key, key);
      counted.maximum_key = std::max(counted.maximum_key, key);
    }
  }
}

/// Appends a bin of 2^16 keys from the sums by the upper half of the key; infinities and NaNs have their own there.
inline void add_wide_bin(Counted& counted, std::size_t upper, std::uint16_t layer, const ValueHistogram::Bin& sums) {
  const auto key = static_cast<std::uint32_t>(upper << 16);
  if (sums.count == 0) return;
  if (key < kLowestKey || key > kHighestKey) {
    counted.nonfinite += sums.count;
    return;
  }
  counted.bins.push_back({key, 16, layer, sums.count, sums.mass, sums.first, sums.second});
}

/// The weighted half of count_all.
[[nodiscard]] Counted count_weighted(const CountWindow& window, bool layered);

}  // namespace lmq
