// Counting with importance, all layers in one or each by itself. Sums lie in pages, because few values of few layers
// occur.
#include <limits>
#include <memory>
#include <utility>

#include "core/steps.hpp"
#include "histogram_window.hpp"
#include "lmq/base/pool.hpp"

namespace lmq {
namespace {
using Bin = ValueHistogram::Bin;
using Wide = unsigned __int128;

/// Sums by pattern for types of 8 and 16 bits, by the key's upper half for floats.
struct PatternSums {
  std::uint64_t count = 0, mass = 0;
};
struct FloatSums {
  std::uint64_t count = 0, mass = 0;
  Wide first = 0, second = 0;
};
void add(PatternSums& to, const PatternSums& from) noexcept { to.count += from.count, to.mass += from.mass; }
void add(FloatSums& to, const FloatSums& from) noexcept {
  to.count += from.count, to.mass += from.mass;
  to.first += from.first, to.second += from.second;
}

/// Sums by layer and slot (0..65535), all zero at first.
template <class Sums>
class PagedSums {
 public:
  static constexpr std::size_t kPage = 256;
  [[nodiscard]] Sums& at(std::size_t layer, std::size_t slot) {
    auto& page = pages_[layer * kPages + slot / kPage];
    if (!page) page = std::make_unique<Page>();
    return (*page)[slot % kPage];
  }
  /// nullptr: all its sums are zero.
  [[nodiscard]] const Sums* page(std::size_t layer, std::size_t slot) const noexcept {
    const auto& page = pages_[layer * kPages + slot / kPage];
    return page ? page->data() : nullptr;
  }
  /// Adds them to `total` and leaves zeros.
  void drain(PagedSums& total) {
    for (std::size_t p = 0; p < pages_.size(); ++p) {
      if (!pages_[p]) continue;
      if (!total.pages_[p]) total.pages_[p] = std::make_unique<Page>();
      for (std::size_t s = 0; s < kPage; ++s) add((*total.pages_[p])[s], std::exchange((*pages_[p])[s], Sums{}));
    }
  }

 private:
  using Page = std::array<Sums, kPage>;
  static constexpr std::size_t kPages = kPatterns / kPage;
  std::vector<std::unique_ptr<Page>> pages_ = std::vector<std::unique_ptr<Page>>(kLayers * kPages);
};

/// What one worker counts into; all zero between uses.
struct WeightedScratch {
  std::unique_ptr<PagedSums<PatternSums>> patterns;
  std::unique_ptr<PagedSums<FloatSums>> floats;
  std::uint32_t lowest = 0xFFFFFFFFu, highest = 0;
};
Pool<WeightedScratch>& pool() {
  static Pool<WeightedScratch> scratch;
  return scratch;
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
  std::array<float, kCountBlock> floats_;
  std::array<std::uint64_t, kCountBlock> steps_;
};

/// Least and greatest key of the finite values. Lanes of their own, so that the compiler makes vectors of them.
void note_extremes(WeightedScratch& scratch, std::span<const float> floats) {
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

template <class Pattern, bool kLayered>
void add_patterns(const CountWindow& window, std::size_t begin, std::size_t count, PagedSums<PatternSums>& sums) {
  BlockSteps block_steps(window.importance);
  for (std::size_t at = begin; at < begin + count; at += kCountBlock) {
    const auto steps = block_steps.at(at, std::min(kCountBlock, begin + count - at));
    const std::byte* from = window.bytes(at, steps.size()).data();
    for (std::size_t i = 0; i < steps.size(); ++i) {
      Pattern pattern;
      std::memcpy(&pattern, from + i * sizeof(Pattern), sizeof(Pattern));
      add(sums.at(kLayered ? layer_of(steps[i]) : 0, pattern), {1, steps[i]});
    }
  }
}

/// Patterns of one layer that occur, of ascending values: all with the sign backwards, then the others.
std::vector<std::uint16_t> used_patterns(const PagedSums<PatternSums>& sums, std::size_t layer, DType type) {
  constexpr std::size_t kPage = PagedSums<PatternSums>::kPage;
  const std::size_t patterns = std::size_t{1} << bits(type), sign = patterns / 2;
  std::vector<std::uint16_t> used;
  const auto look = [&](std::size_t pattern) {
    const PatternSums* const page = sums.page(layer, pattern);
    if (page != nullptr && page[pattern % kPage].count > 0) used.push_back(static_cast<std::uint16_t>(pattern));
    return page != nullptr;
  };
  for (std::size_t pattern = patterns; pattern-- > sign;)
    if (!look(pattern)) pattern -= pattern % kPage;
  for (std::size_t pattern = 0; pattern < sign; ++pattern)
    if (!look(pattern)) pattern += kPage - 1;
  return used;
}

Counted count_patterns(const CountWindow& window, bool layered) {
  PerWorker<WeightedScratch> scratch(pool(), thread_count());
  each_task(window.view.count, [&](std::size_t begin, std::size_t count, std::size_t worker) {
    auto& sums = scratch[worker].patterns;
    if (!sums) sums = std::make_unique<PagedSums<PatternSums>>();
    const auto work = window.size == 2
                          ? (layered ? add_patterns<std::uint16_t, true> : add_patterns<std::uint16_t, false>)
                          : (layered ? add_patterns<std::uint8_t, true> : add_patterns<std::uint8_t, false>);
    work(window, begin, count, *sums);
  });
  PagedSums<PatternSums> total;
  scratch.finish([&](WeightedScratch& one) {
    if (one.patterns) one.patterns->drain(total);
  });
  Counted counted;
  for (std::size_t layer = 0; layer < (layered ? kLayers : 1); ++layer)
    add_pattern_bins(
        window.view.dtype, used_patterns(total, layer, window.view.dtype), static_cast<std::uint16_t>(layer),
        [&](std::uint16_t pattern) { return total.at(layer, pattern); }, counted);
  return counted;
}

void add_floats(const CountWindow& window, bool layered, std::size_t begin, std::size_t count,
                WeightedScratch& scratch) {
  BlockSteps block_steps(window.importance);
  each_float_block(window, begin, count, [&](std::size_t at, std::span<const float> floats) {
    const auto steps = block_steps.at(at, floats.size());
    for (std::size_t i = 0; i < floats.size(); ++i) {
      const std::uint32_t key = float_key(floats[i]);
      const std::uint64_t offset = key & 0xFFFFu;
      add(scratch.floats->at(layered ? layer_of(steps[i]) : 0, key >> 16),
          {1, steps[i], Wide{steps[i]} * offset, Wide{steps[i]} * (offset * offset)});
    }
    note_extremes(scratch, floats);
  });
}

Counted count_floats(const CountWindow& window, bool layered) {
  PerWorker<WeightedScratch> scratch(pool(), thread_count());
  each_task(window.view.count, [&](std::size_t begin, std::size_t count, std::size_t worker) {
    WeightedScratch& mine = scratch[worker];
    if (!mine.floats) mine.floats = std::make_unique<PagedSums<FloatSums>>();
    add_floats(window, layered, begin, count, mine);
  });
  Counted counted;
  PagedSums<FloatSums> total;
  scratch.finish([&](WeightedScratch& one) {
    if (one.floats) one.floats->drain(total);
    counted.minimum_key = std::min(counted.minimum_key, std::exchange(one.lowest, 0xFFFFFFFFu));
    counted.maximum_key = std::max(counted.maximum_key, std::exchange(one.highest, 0u));
  });
  constexpr std::size_t kPage = PagedSums<FloatSums>::kPage;
  for (std::size_t layer = 0; layer < (layered ? kLayers : 1); ++layer)
    for (std::size_t upper = 0; upper < kPatterns; upper += kPage) {
      const FloatSums* const page = total.page(layer, upper);
      for (std::size_t s = 0; page != nullptr && s < kPage; ++s)
        add_wide_bin(counted, upper + s, static_cast<std::uint16_t>(layer),
                     {0, 0, 0, page[s].count, page[s].mass, page[s].first, page[s].second});
    }
  return counted;
}
}  // namespace

Counted count_weighted(const CountWindow& window, bool layered) {
  return window.size <= 2 ? count_patterns(window, layered) : count_floats(window, layered);
}

}  // namespace lmq
