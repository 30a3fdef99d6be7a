#include "histogram_count.hpp"

#include <algorithm>
#include <bit>
#include <memory>
#include <mutex>
#include <utility>

#include "histogram_window.hpp"
#include "lmq/base/pool.hpp"
#include "lmq/kernels/histogram.hpp"

namespace lmq {
namespace {

// Windows of fewer weights are counted in one table, of which only what was used is looked at and cleared: 8 us for
// 1,536 weights, where the tables of Histogram16 take 260.
constexpr std::size_t kFewWeights = std::size_t{1} << 15;

/// Counts of 16-bit patterns, few of which occur.
class FewPatterns {
 public:
  void add(std::span<const std::byte> patterns) {
    for (std::size_t i = 0; i < patterns.size(); i += 2) {
      std::uint16_t pattern;
      std::memcpy(&pattern, patterns.data() + i, sizeof pattern);
      used_[pattern / 64] |= std::uint64_t{1} << pattern % 64;
      ++counts_[pattern];
    }
  }
  /// Those that occur, ascending.
  [[nodiscard]] std::vector<std::uint16_t> used() const {
    std::vector<std::uint16_t> all;
    for (std::size_t word = 0; word < used_.size(); ++word)
      for (std::uint64_t left = used_[word]; left != 0; left &= left - 1)
        all.push_back(static_cast<std::uint16_t>(64 * word + static_cast<std::size_t>(std::countr_zero(left))));
    return all;
  }
  /// The count of a pattern, which becomes 0.
  [[nodiscard]] std::uint64_t take(std::uint16_t pattern) noexcept {
    used_[pattern / 64] &= ~(std::uint64_t{1} << pattern % 64);
    return std::exchange(counts_[pattern], 0);
  }

 private:
  std::array<std::uint32_t, kPatterns> counts_{};
  std::array<std::uint64_t, kPatterns / 64> used_{};
};

/// What one worker counts into; all zero between uses. Only what is needed is ever allocated.
struct CountScratch {
  std::unique_ptr<FewPatterns> few;
  std::unique_ptr<Histogram16> patterns;
  std::unique_ptr<MomentHistogram> moments;
};

Pool<CountScratch>& pool() {
  static Pool<CountScratch> scratch;
  return scratch;
}

struct PatternSums {
  std::uint64_t count, mass;
};

Counted count_few_patterns(const CountWindow& window) {
  PerWorker<CountScratch> scratch(pool(), 1);
  if (!scratch[0].few) scratch[0].few = std::make_unique<FewPatterns>();
  FewPatterns& patterns = *scratch[0].few;
  patterns.add(window.view.bytes);
  std::vector<std::uint16_t> used = patterns.used();
  const auto signs = std::ranges::lower_bound(used, kPatterns / 2);
  std::reverse(signs, used.end());
  std::rotate(used.begin(), signs, used.end());  // lowest value first
  Counted counted;
  add_pattern_bins(
      window.view.dtype, used, 0,
      [&](std::uint16_t p) {
        const std::uint64_t count = patterns.take(p);
        return PatternSums{count, count};
      },
      counted);
  scratch.finish([](CountScratch&) {});
  return counted;
}

Counted count_patterns(const CountWindow& window) {
  if (window.size == 2 && window.view.count < kFewWeights) return count_few_patterns(window);
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
  std::vector<std::uint16_t> used;
  for (std::size_t pattern = totals.size(); pattern-- > totals.size() / 2;)  // lowest value first
    if (totals[pattern] > 0) used.push_back(static_cast<std::uint16_t>(pattern));
  for (std::size_t pattern = 0; pattern < totals.size() / 2; ++pattern)
    if (totals[pattern] > 0) used.push_back(static_cast<std::uint16_t>(pattern));
  Counted counted;
  add_pattern_bins(
      window.view.dtype, used, 0,
      [&](std::uint16_t p) {
        return PatternSums{totals[p], totals[p]};
      },
      counted);
  return counted;
}

Counted count_floats(const CountWindow& window) {
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
    add_wide_bin(counted, upper, 0,
                 {0, 0, 0, totals[upper].count, totals[upper].count, totals[upper].first, totals[upper].second});
  return counted;
}

}  // namespace

Counted count_all(const TensorView& view, const Importance& importance, bool layered) {
  const CountWindow window{view, importance, bits(view.dtype) / 8};
  if (view.count == 0) return {};
  if (importance.kind != Importance::Kind::none) return count_weighted(window, layered);
  return window.size <= 2 ? count_patterns(window) : count_floats(window);
}

}  // namespace lmq
