#include "tally_count.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <memory>
#include <mutex>
#include <utility>

#include "lmq/base/parallel.hpp"
#include "lmq/kernels/histogram.hpp"
#include "lmq/kernels/keys.hpp"
#include "lmq/kernels/widen.hpp"
#include "pool.hpp"
#include "steps.hpp"

namespace lmq {
namespace {
using Bin = Tally::Bin;
using Wide = unsigned __int128;

constexpr std::size_t kPatterns = 65536;
constexpr std::size_t kTask = std::size_t{1} << 16;                           // weights a worker takes at once
constexpr std::size_t kBlock = 4096;                                          // weights widened at once
constexpr std::uint32_t kLowestKey = 0x00800000u, kHighestKey = 0xFF7FFFFFu;  // of finite floats

/// Sums with importance: by pattern for types of 8 and 16 bits (offsets 0), by the key's upper half for floats.
struct WeightedCell {
  std::uint64_t count = 0, mass = 0;
};
struct WeightedMoments {
  Wide first = 0, second = 0;
};

/// What one worker counts into; all zero between uses. Only what is needed is ever allocated.
struct CountScratch {
  std::unique_ptr<Histogram16> patterns;
  std::unique_ptr<MomentHistogram> moments;
  std::vector<WeightedCell> cells;        // [65536]
  std::vector<WeightedMoments> weighted;  // [65536]
  std::uint32_t lowest = 0xFFFFFFFFu, highest = 0;
};

Pool<CountScratch>& pool() {
  static Pool<CountScratch> scratch;
  return scratch;
}

struct Window {
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
  parallel_for_worker((count + kTask - 1) / kTask, [&](std::size_t task, std::size_t worker) {
    const std::size_t begin = task * kTask;
    body(begin, std::min(kTask, count - begin), worker);
  });
}

/// Calls body(block's begin, floats) for the blocks of a task.
template <class Body>
void each_float_block(const Window& window, std::size_t begin, std::size_t count, const Body& body) {
  std::array<float, kBlock> floats;
  for (std::size_t at = begin; at < begin + count; at += kBlock) {
    const auto block = std::span(floats).first(std::min(kBlock, begin + count - at));
    widen(window.view.dtype, window.bytes(at, block.size()), block);
    body(at, std::span<const float>(block));
  }
}

/// Least and greatest key of the finite values. Lanes of their own, so that the compiler makes vectors of them.
void note_extremes(CountScratch& scratch, std::span<const float> floats) {
  constexpr std::size_t kLanes = 16;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::array<float, kLanes> low, high;
  low.fill(kInfinity), high.fill(-kInfinity);
  std::size_t i = 0;
  for (; i + kLanes <= floats.size(); i += kLanes)
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      const float value = floats[i + lane];
      low[lane] = value < low[lane] ? value : low[lane];
      high[lane] = value > high[lane] ? value : high[lane];
    }
  const bool finite = *std::ranges::min_element(low) > -kInfinity && *std::ranges::max_element(high) < kInfinity;
  const auto note = [&](float value) {
    const std::uint32_t key = float_key(value);
    if (key < kLowestKey || key > kHighestKey) return;
    scratch.lowest = std::min(scratch.lowest, key);
    scratch.highest = std::max(scratch.highest, key);
  };
  if (finite) {
    for (const float value : low) note(value);
    for (const float value : high) note(value);
  } else {
    i = 0;
  }
  for (; i < floats.size(); ++i) note(floats[i]);
}

/// Bins of an 8- or 16-bit type from sums by pattern: count_of(pattern), mass_of(pattern). Both zeros are one bin; what
/// is not finite is counted out.
template <class Count, class Mass>
Counted bins_by_pattern(DType type, const Count& count_of, const Mass& mass_of) {
  const std::size_t patterns = std::size_t{1} << bits(type), sign = patterns / 2, size = bits(type) / 8;
  std::vector<std::uint16_t> used;
  for (std::size_t pattern = patterns; pattern-- > sign;)  // lowest value first: all patterns with the sign, backwards
    if (count_of(pattern) > 0) used.push_back(static_cast<std::uint16_t>(pattern));
  for (std::size_t pattern = 0; pattern < sign; ++pattern)
    if (count_of(pattern) > 0) used.push_back(static_cast<std::uint16_t>(pattern));
  std::vector<std::byte> packed(used.size() * size);
  for (std::size_t j = 0; j < used.size(); ++j) std::memcpy(packed.data() + j * size, &used[j], size);
  std::vector<float> values(used.size());
  widen(type, packed, values);
  Counted counted;
  counted.bins.reserve(used.size());
  for (std::size_t j = 0; j < used.size(); ++j) {
    const std::uint32_t key = float_key(values[j]);
    const std::uint64_t count = count_of(used[j]), mass = mass_of(used[j]);
    if (!finite_pattern(std::bit_cast<std::uint32_t>(values[j]))) {
      counted.nonfinite += count;
    } else if (!counted.bins.empty() && counted.bins.back().key == key) {
      counted.bins.back().count += count;
      counted.bins.back().mass += mass;
    } else {
      counted.bins.push_back({key, 0, count, mass, 0, 0});
    }
  }
  if (!counted.bins.empty()) {
    counted.minimum_key = counted.bins.front().key;
    counted.maximum_key = counted.bins.back().key;
  }
  return counted;
}

Counted count_patterns(const Window& window) {
  PerWorker<CountScratch> scratch(pool(), thread_count());
  std::mutex bytes_mutex;
  std::vector<std::uint64_t> totals(window.size == 2 ? kPatterns : 256);
  each_task(window.view.count, [&](std::size_t begin, std::size_t count, std::size_t worker) {
    const std::byte* from = window.bytes(begin, count).data();
    if (window.size == 1) {
      std::array<std::uint64_t, 256> mine{};
      add_histogram8(from, count, mine);
      const std::lock_guard lock(bytes_mutex);
      for (std::size_t p = 0; p < 256; ++p) totals[p] += mine[p];
      return;
    }
    auto& histogram = scratch[worker].patterns;
    if (!histogram) histogram = std::make_unique<Histogram16>();
    histogram->add(from, count);
  });
  if (window.size == 2) scratch.finish([&](CountScratch& one) { one.patterns->drain(totals); });
  const auto count_of = [&](std::size_t pattern) { return totals[pattern]; };
  return bins_by_pattern(window.view.dtype, count_of, count_of);
}

/// Steps of importance for a block of weights.
class BlockSteps {
 public:
  explicit BlockSteps(const Importance& importance) : importance_(importance) {}
  [[nodiscard]] std::span<const std::uint64_t> at(std::size_t begin, std::size_t count) {
    importance_at(importance_, begin, std::span(floats_).first(count));
    importance_steps(std::span(floats_).first(count), importance_.quantum, std::span(steps_).first(count));
    return std::span(steps_).first(count);
  }

 private:
  const Importance& importance_;
  std::array<float, kBlock> floats_;
  std::array<std::uint64_t, kBlock> steps_;
};

template <class Pattern>
void add_weighted_patterns(const Window& window, std::size_t begin, std::size_t count, CountScratch& scratch) {
  scratch.cells.resize(kPatterns);
  WeightedCell* const cells = scratch.cells.data();
  BlockSteps block_steps(window.importance);
  for (std::size_t at = begin; at < begin + count; at += kBlock) {
    const auto steps = block_steps.at(at, std::min(kBlock, begin + count - at));
    const std::byte* from = window.bytes(at, steps.size()).data();
    for (std::size_t i = 0; i < steps.size(); ++i) {
      Pattern pattern;
      std::memcpy(&pattern, from + i * sizeof(Pattern), sizeof(Pattern));
      ++cells[pattern].count;
      cells[pattern].mass += steps[i];
    }
  }
}

Counted count_weighted_patterns(const Window& window) {
  PerWorker<CountScratch> scratch(pool(), thread_count());
  each_task(window.view.count, [&](std::size_t begin, std::size_t count, std::size_t worker) {
    if (window.size == 2)
      add_weighted_patterns<std::uint16_t>(window, begin, count, scratch[worker]);
    else
      add_weighted_patterns<std::uint8_t>(window, begin, count, scratch[worker]);
  });
  std::vector<WeightedCell> totals(kPatterns);
  scratch.finish([&](CountScratch& one) {
    for (std::size_t p = 0; p < kPatterns; ++p) {
      totals[p].count += one.cells[p].count;
      totals[p].mass += one.cells[p].mass;
    }
    std::ranges::fill(one.cells, WeightedCell{});
  });
  return bins_by_pattern(
      window.view.dtype, [&](std::size_t p) { return totals[p].count; }, [&](std::size_t p) { return totals[p].mass; });
}

/// Bins of 2^16 keys from sums by the upper half of the key; infinities and NaNs have their own bins there.
void add_wide_bin(Counted& counted, std::size_t upper, const Bin& sums) {
  const auto key = static_cast<std::uint32_t>(upper << 16);
  if (sums.count == 0) return;
  if (key < kLowestKey || key > kHighestKey) {
    counted.nonfinite += sums.count;
    return;
  }
  counted.bins.push_back({key, 16, sums.count, sums.mass, sums.first, sums.second});
}

Counted count_floats(const Window& window) {
  PerWorker<CountScratch> scratch(pool(), thread_count());
  each_task(window.view.count, [&](std::size_t begin, std::size_t count, std::size_t worker) {
    CountScratch& mine = scratch[worker];
    if (!mine.moments) mine.moments = std::make_unique<MomentHistogram>();
    if (window.view.dtype == DType::f32) {
      mine.moments->add(window.bytes(begin, count).data(), count);
      return;
    }
    each_float_block(window, begin, count, [&](std::size_t, std::span<const float> floats) {
      mine.moments->add(std::as_bytes(floats).data(), floats.size());
    });
  });
  Counted counted;
  std::vector<Moments> totals(kPatterns);
  scratch.finish([&](CountScratch& one) {
    const KeyExtremes extremes = one.moments->drain(totals);
    counted.minimum_key = std::min(counted.minimum_key, extremes.lowest);
    counted.maximum_key = std::max(counted.maximum_key, extremes.highest);
  });
  for (std::size_t upper = 0; upper < kPatterns; ++upper)
    add_wide_bin(counted, upper,
                 {0, 0, totals[upper].count, totals[upper].count, totals[upper].first, totals[upper].second});
  return counted;
}

void add_weighted_floats(const Window& window, std::size_t begin, std::size_t count, CountScratch& scratch) {
  scratch.cells.resize(kPatterns);
  scratch.weighted.resize(kPatterns);
  BlockSteps block_steps(window.importance);
  each_float_block(window, begin, count, [&](std::size_t at, std::span<const float> floats) {
    const auto steps = block_steps.at(at, floats.size());
    for (std::size_t i = 0; i < floats.size(); ++i) {
      const std::uint32_t key = float_key(floats[i]);
      const std::uint64_t offset = key & 0xFFFFu;
      WeightedCell& cell = scratch.cells[key >> 16];
      WeightedMoments& moments = scratch.weighted[key >> 16];
      ++cell.count;
      cell.mass += steps[i];
      moments.first += Wide{steps[i]} * offset;
      moments.second += Wide{steps[i]} * (offset * offset);
    }
    note_extremes(scratch, floats);
  });
}

Counted count_weighted_floats(const Window& window) {
  PerWorker<CountScratch> scratch(pool(), thread_count());
  each_task(window.view.count, [&](std::size_t begin, std::size_t count, std::size_t worker) {
    add_weighted_floats(window, begin, count, scratch[worker]);
  });
  Counted counted;
  std::vector<Bin> totals(kPatterns);
  scratch.finish([&](CountScratch& one) {
    for (std::size_t upper = 0; upper < kPatterns; ++upper) {
      WeightedCell& cell = one.cells[upper];
      if (cell.count == 0) continue;
      WeightedMoments& moments = one.weighted[upper];
      Bin& total = totals[upper];
      total.count += cell.count, total.mass += cell.mass;
      total.first += moments.first, total.second += moments.second;
      cell = {}, moments = {};
    }
    counted.minimum_key = std::min(counted.minimum_key, std::exchange(one.lowest, 0xFFFFFFFFu));
    counted.maximum_key = std::max(counted.maximum_key, std::exchange(one.highest, 0u));
  });
  for (std::size_t upper = 0; upper < kPatterns; ++upper) add_wide_bin(counted, upper, totals[upper]);
  return counted;
}
}  // namespace

Counted count_all(const TensorView& view, const Importance& importance) {
  const Window window{view, importance, bits(view.dtype) / 8};
  if (view.count == 0) return {};
  const bool weighted = importance.kind != Importance::Kind::none;
  if (window.size <= 2) return weighted ? count_weighted_patterns(window) : count_patterns(window);
  return weighted ? count_weighted_floats(window) : count_floats(window);
}

}  // namespace lmq
