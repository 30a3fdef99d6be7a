#include "partition_scan.hpp"

#include <array>
#include <cstdlib>
#include <limits>
#include <string_view>

namespace lmq {
namespace {

#define LMQ_INLINE inline __attribute__((always_inline))

constexpr std::size_t kLanes = 8;
using Doubles = double __attribute__((vector_size(kLanes * sizeof(double)), aligned(sizeof(double)), may_alias));
using Longs = std::int64_t __attribute__((vector_size(kLanes * sizeof(std::int64_t))));
constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Best {
  double value;
  std::size_t index;
};

LMQ_INLINE Best scan_short(const LayerProblem& p, double shift, double weight, std::size_t first, std::size_t last) {
  Best best{kInfinity, first};
  for (std::size_t k = first; k < last; ++k) {
    const double e = shift - p.shift[k];
    const double value = p.base[k] - e * e / (weight - p.weight[k]);
    if (value < best.value) best = {value, k};
  }
  return best;
}

// Smallest of p.base[k] - e^2 / w over [first, last); the smallest index among equals.
LMQ_INLINE Best scan(const LayerProblem& p, double shift, double weight, std::size_t first, std::size_t last) {
  if (last - first < kLanes) return scan_short(p, shift, weight, first, last);
  Doubles best = Doubles{} + kInfinity;
  Longs best_at = {}, at = {0, 1, 2, 3, 4, 5, 6, 7};
  at += static_cast<std::int64_t>(first);
  // The last step overlaps the one before: a candidate seen twice changes nothing.
  for (std::size_t k = first;;) {
    const Doubles e = shift - *reinterpret_cast<const Doubles*>(p.shift + k);
    const Doubles w = weight - *reinterpret_cast<const Doubles*>(p.weight + k);
    const Doubles value = *reinterpret_cast<const Doubles*>(p.base + k) - e * e / w;
    const Longs better = value < best;
    best = better ? value : best;
    best_at = better ? at : best_at;
    const std::size_t next = k + 2 * kLanes <= last ? k + kLanes : last - kLanes;
    if (next == k) break;
    at += static_cast<std::int64_t>(next - k);
    k = next;
  }
  Best result{best[0], static_cast<std::size_t>(best_at[0])};
  for (std::size_t lane = 1; lane < kLanes; ++lane) {
    const auto index = static_cast<std::size_t>(best_at[lane]);
    if (best[lane] < result.value || (best[lane] == result.value && index < result.index)) result = {best[lane], index};
  }
  return result;
}

struct Span {
  std::uint32_t row_first, row_last, first, last;  // rows [row_first, row_last), candidates first..last inclusive
};

LMQ_INLINE void layer_body(const LayerProblem& p) {
  std::array<Span, 64> stack;  // depth is at most log2(rows) + 1
  std::size_t depth = 0;
  if (p.rows > 0)
    stack[depth++] = {0, static_cast<std::uint32_t>(p.rows), 0, static_cast<std::uint32_t>(p.candidates - 1)};
  while (depth > 0) {
    Span s = stack[--depth];
    while (s.row_first < s.row_last) {
      const std::uint32_t row = (s.row_first + s.row_last) / 2;
      const std::size_t limit = p.limit[row];
      std::size_t last = s.last + std::size_t{1} < limit ? s.last + std::size_t{1} : limit;
      const std::size_t first = s.first < limit ? s.first : limit - 1;
      if (last <= first) last = first + 1;
      const Best best = scan(p, p.row_shift[row], p.row_weight[row], first, last);
      p.value[row] = best.value;
      p.argument[row] = static_cast<std::uint32_t>(best.index);
      const auto split = static_cast<std::uint32_t>(best.index);
      if (row + 1 < s.row_last) stack[depth++] = {row + 1, s.row_last, split, s.last};
      s.row_last = row;
      s.last = split;
    }
  }
}

LMQ_INLINE double bound_body(const BoundProblem& p) {
  double result = kInfinity;
  std::size_t k = 0;
  if (p.count >= kLanes) {
    Doubles best = Doubles{} + kInfinity;
    for (;;) {
      const Doubles up = p.x_high - *reinterpret_cast<const Doubles*>(p.low + k);
      const Doubles down = p.x_low - *reinterpret_cast<const Doubles*>(p.high + k);
      const Doubles w = p.x_weight - *reinterpret_cast<const Doubles*>(p.weight + k);
      const Doubles up2 = up * up, down2 = down * down;
      const Doubles square = up2 < down2 ? down2 : up2;
      const Doubles width = w < 0 ? -w : w;
      const Doubles value = *reinterpret_cast<const Doubles*>(p.base + k) - square / width;
      best = value < best ? value : best;
      const std::size_t next = k + 2 * kLanes <= p.count ? k + kLanes : p.count - kLanes;
      if (next == k) break;
      k = next;
    }
    for (std::size_t lane = 0; lane < kLanes; ++lane) result = best[lane] < result ? best[lane] : result;
    return result;
  }
  for (; k < p.count; ++k) {
    const double up = p.x_high - p.low[k], down = p.x_low - p.high[k], w = p.x_weight - p.weight[k];
    const double square = up * up < down * down ? down * down : up * up;
    const double value = p.base[k] - square / (w < 0 ? -w : w);
    result = value < result ? value : result;
  }
  return result;
}

void layer_baseline(const LayerProblem& p) noexcept { layer_body(p); }
double bound_baseline(const BoundProblem& p) noexcept { return bound_body(p); }
constexpr PartitionScans kBaseline{layer_baseline, bound_baseline};

#if defined(__x86_64__)
#define LMQ_AVX2 __attribute__((target("avx2")))
#define LMQ_AVX512 __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,prefer-vector-width=512")))
LMQ_AVX2 void layer_avx2(const LayerProblem& p) noexcept { layer_body(p); }
LMQ_AVX2 double bound_avx2(const BoundProblem& p) noexcept { return bound_body(p); }
LMQ_AVX512 void layer_avx512(const LayerProblem& p) noexcept { layer_body(p); }
LMQ_AVX512 double bound_avx512(const BoundProblem& p) noexcept { return bound_body(p); }
constexpr PartitionScans kAvx2{layer_avx2, bound_avx2};
constexpr PartitionScans kAvx512{layer_avx512, bound_avx512};
#endif

const PartitionScans& choose() noexcept {
  const char* wish = std::getenv("LMQ_ISA");
  if (wish != nullptr && std::string_view(wish) == "baseline") return kBaseline;
  std::array<const PartitionScans*, 4> sets{};
  return *sets[partition_scan_sets(sets.data(), sets.size()) - 1];
}

}  // namespace

std::size_t partition_scan_sets(const PartitionScans** sets, std::size_t room) noexcept {
  std::size_t count = 0;
  const auto add = [&](const PartitionScans& set) {
    if (count < room) sets[count++] = &set;
  };
  add(kBaseline);
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) add(kAvx2);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw"))
    add(kAvx512);
#endif
  return count;
}

const PartitionScans& partition_scans() noexcept {
  static const PartitionScans& chosen = choose();
  return chosen;
}

}  // namespace lmq
