#include "partition_scan.hpp"

#include <array>
#include <limits>

#include "lmq/kernels/isa.hpp"

#pragma GCC diagnostic ignored "-Wpsabi"  // vectors are passed between inlined functions only

namespace lmq {
namespace {

#define LMQ_INLINE inline __attribute__((always_inline))

constexpr std::size_t kLanes = 8;
using Doubles = double __attribute__((vector_size(kLanes * sizeof(double))));
using LooseDoubles = double __attribute__((vector_size(kLanes * sizeof(double)), aligned(sizeof(double)), may_alias));
using Longs = std::int64_t __attribute__((vector_size(kLanes * sizeof(std::int64_t))));
constexpr double kInfinity = std::numeric_limits<double>::infinity();

constexpr std::size_t kFew = 16;  // so few candidates are quicker tried than divided

constexpr std::size_t kPillar = kLanes * kLanes;

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
    const Doubles e = shift - *reinterpret_cast<const LooseDoubles*>(p.shift + k);
    const Doubles w = weight - *reinterpret_cast<const LooseDoubles*>(p.weight + k);
    const Doubles value = *reinterpret_cast<const LooseDoubles*>(p.base + k) - e * e / w;
    const Longs better = value < best;
    best = better ? value : best;
    best_at = better ? at : best_at;
    const std::size_t next = k + 2 * kLanes <= last ? k + kLanes : last - kLanes;
    if (next == k) break;
    at += static_cast<std::int64_t>(next - k);
    k = next;
  }
  double values[kLanes];
  std::int64_t indices[kLanes];
  __builtin_memcpy(values, &best, sizeof values);
  __builtin_memcpy(indices, &best_at, sizeof indices);
  Best result{values[0], static_cast<std::size_t>(indices[0])};
  for (std::size_t lane = 1; lane < kLanes; ++lane) {
    const auto index = static_cast<std::size_t>(indices[lane]);
    if (values[lane] < result.value || (values[lane] == result.value && index < result.index))
      result = {values[lane], index};
  }
  return result;
}

struct Span {
  std::uint32_t row_first, row_last, first, last;  // rows [row_first, row_last), candidates first..last inclusive
};

// Pillars: every kPillar-th row and the last one, by divide and conquer on the monotone arg-min.
LMQ_INLINE void pillar_rows(const LayerProblem& p) {
  std::array<Span, 64> stack;  // depth is at most log2(pillars) + 1
  std::size_t depth = 0;
  const auto pillars = static_cast<std::uint32_t>((p.rows + kPillar - 1) / kPillar);
  stack[depth++] = {0, pillars, 0, static_cast<std::uint32_t>(p.candidates - 1)};
  while (depth > 0) {
    Span s = stack[--depth];
    while (s.row_first < s.row_last) {
      const std::uint32_t pillar = (s.row_first + s.row_last) / 2;
      const std::size_t whole = pillar * kPillar + (kPillar - 1), row = whole < p.rows ? whole : p.rows - 1;
      const std::size_t limit = p.limit[row];
      std::size_t last = s.last + std::size_t{1} < limit ? s.last + std::size_t{1} : limit;
      const std::size_t first = s.first < limit ? s.first : limit - 1;
      if (last <= first) last = first + 1;
      const Best best = scan(p, p.row_shift[row], p.row_weight[row], first, last);
      const auto split = static_cast<std::uint32_t>(best.index);
      p.value[row] = best.value;
      p.argument[row] = split;
      if (pillar + 1 < s.row_last) stack[depth++] = {pillar + 1, s.row_last, split, s.last};
      s.row_last = pillar;
      s.last = split;
    }
  }
}

// kLanes rows side by side over candidates first..last. A candidate that is no edge before the row has no weight left
// and is passed over.
LMQ_INLINE Longs abreast(const LayerProblem& p, Doubles shift, Doubles weight, std::size_t first, std::size_t last,
                         Doubles& best) {
  const Doubles never = Doubles{} + kInfinity;
  best = never;
  Longs best_at = Longs{} + static_cast<std::int64_t>(first);
  for (std::size_t k = first; k <= last; ++k) {
    const Doubles e = shift - p.shift[k], w = weight - p.weight[k];
    Doubles value = p.base[k] - e * e / w;
    value = w > 0 ? value : never;
    const Longs better = value < best;
    best = better ? value : best;
    best_at = better ? Longs{} + static_cast<std::int64_t>(k) : best_at;
  }
  return best_at;
}

LMQ_INLINE void neighbour_rows(const LayerProblem& p, std::size_t row, std::size_t first, std::size_t last) {
  const Doubles shift = *reinterpret_cast<const LooseDoubles*>(p.row_shift + row);
  const Doubles weight = *reinterpret_cast<const LooseDoubles*>(p.row_weight + row);
  Doubles best;
  const Longs best_at = abreast(p, shift, weight, first, last, best);
  *reinterpret_cast<LooseDoubles*>(p.value + row) = best;
  for (std::size_t lane = 0; lane < kLanes; ++lane) p.argument[row + lane] = static_cast<std::uint32_t>(best_at[lane]);
}

// Every kLanes-th row of [row, end) and the last one, at most kLanes of them.
LMQ_INLINE void spread_rows(const LayerProblem& p, std::size_t row, std::size_t end, std::size_t first,
                            std::size_t last) {
  double shifts[kLanes], weights[kLanes];
  std::size_t rows[kLanes];
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    const std::size_t at = row + kLanes * lane + (kLanes - 1);
    rows[lane] = at < end ? at : end - 1;
    shifts[lane] = p.row_shift[rows[lane]];
    weights[lane] = p.row_weight[rows[lane]];
  }
  Doubles shift, weight, best;
  __builtin_memcpy(&shift, shifts, sizeof shift);
  __builtin_memcpy(&weight, weights, sizeof weight);
  const Longs best_at = abreast(p, shift, weight, first, last, best);
  for (std::size_t lane = 0; lane < kLanes; ++lane) p.argument[rows[lane]] = static_cast<std::uint32_t>(best_at[lane]);
}

LMQ_INLINE void layer_body(const LayerProblem& p) {
  if (p.rows < kLanes) {
    std::size_t first = 0;
    for (std::size_t row = 0; row < p.rows; ++row) {
      const Best best = scan(p, p.row_shift[row], p.row_weight[row], first, p.limit[row]);
      p.value[row] = best.value;
      p.argument[row] = static_cast<std::uint32_t>(first = best.index);
    }
    return;
  }
  const bool few = p.candidates <= kFew;
  if (!few) pillar_rows(p);
  std::size_t first = 0;
  for (std::size_t pillar = 0; pillar < p.rows; pillar += kPillar) {
    const std::size_t end = pillar + kPillar < p.rows ? pillar + kPillar : p.rows;
    if (!few && end - pillar > kLanes) spread_rows(p, pillar, end, first, p.argument[end - 1]);
    for (std::size_t row = pillar; row < end; row += kLanes) {
      const std::size_t next = row + kLanes < end ? row + kLanes : end;
      const std::size_t limit = p.limit[next - 1] - std::size_t{1};
      const std::size_t last = few || limit < p.argument[next - 1] ? limit : p.argument[next - 1];
      if (next == row + kLanes)
        neighbour_rows(p, row, first, last);
      else  // the last rows, with some done before whose arg-min may lie before `first`
        neighbour_rows(p, next - kLanes, p.argument[next - kLanes], last);
      first = p.argument[next - 1];
    }
  }
}

template <class T>
LMQ_INLINE T greater_of(T a, T b) {
  return a < b ? b : a;
}

// Block k's number, in every lane; or (From is a vector) the numbers of the blocks from k on.
template <class T, class From>
LMQ_INLINE T at(const double* array, std::size_t k) {
  if constexpr (sizeof(From) == sizeof(double))
    return T{} + array[k];
  else
    return *reinterpret_cast<const LooseDoubles*>(array + k);
}

// At most the mean of (x - v)+ over the points of a block: convex in x, so at most the chord over [low, high].
template <class T>
LMQ_INLINE T shortfall(T x, T mean, T low, T ratio) {
  return greater_of(greater_of(x - mean, (x - low) * ratio), T{});
}

// The bound of one cell, see narrow.hpp. P and R: where each side's numbers come from.
template <class T, class P, class R>
LMQ_INLINE T cell_bound(const P& p, const R& r) {
  const T level = r.level, mean = p.mean, w_first = p.w_first;
  const T wide = r.w_first - w_first, mass = p.w_last - w_first, core = r.w_first - p.w_last;
  const T sum = r.s_right - p.s_left, lower = r.lower;
  const T slope = lower * (2 * sum + lower * wide);
  const T step = level - p.level, theta = 0.5 * (level + p.level);
  const T fall = step < 0 ? step : T{};
  const T potential =
      2 * mass * ((step - 2 * fall) * shortfall<T>(theta, mean, p.low, p.ratio) + fall * (theta - mean));
  const T part = mass * shortfall<T>(level, mean, p.low, p.ratio);
  const T base = sum + lower * wide;
  const T up = base + r.rise + part, down = base + r.dip - (part - mass * (level - mean));
  const T square = greater_of<T>(up * up, down * down);
  const T drop = p.d_left - r.d_right;  // a cell costs nothing at least
  const T never = T{} - kInfinity;
  T close = slope - potential - square / core;
  close = core > 0 ? close : never;
  return greater_of<T>(close, drop);
}

template <class T>
struct Left {
  T w_first, w_last, level, mean, low, ratio, s_left, d_left;
};
template <class T>
struct Right {
  T w_first, level, s_right, lower, dip, rise, d_right;
};
template <class T, class From>
LMQ_INLINE Left<T> left_of(const BlockArrays& b, std::size_t k) {
  return {at<T, From>(b.w_first, k), at<T, From>(b.w_last, k), at<T, From>(b.level, k),  at<T, From>(b.mean, k),
          at<T, From>(b.low, k),     at<T, From>(b.ratio, k),  at<T, From>(b.s_left, k), at<T, From>(b.d_left, k)};
}
template <class T, class From>
LMQ_INLINE Right<T> right_of(const BlockArrays& b, std::size_t k) {
  return {at<T, From>(b.w_first, k), at<T, From>(b.level, k), at<T, From>(b.s_right, k), at<T, From>(b.lower, k),
          at<T, From>(b.dip, k),     at<T, From>(b.rise, k),  at<T, From>(b.d_right, k)};
}

LMQ_INLINE double least_lane(Doubles best) {
  double result = best[0];
  for (std::size_t lane = 1; lane < kLanes; ++lane) result = best[lane] < result ? best[lane] : result;
  return result;
}

LMQ_INLINE double before_body(const BlockArrays& b, std::size_t first, std::size_t last, std::size_t right) {
  double result = kInfinity;
  if (last - first >= kLanes) {
    const Right<Doubles> r = right_of<Doubles, double>(b, right);
    Doubles best = Doubles{} + kInfinity;
    for (std::size_t k = first; k < last; k += kLanes) {
      k = k + kLanes <= last ? k : last - kLanes;
      const Doubles value =
          at<Doubles, Doubles>(b.forward, k) + cell_bound<Doubles>(left_of<Doubles, Doubles>(b, k), r);
      best = value < best ? value : best;
    }
    return least_lane(best);
  }
  const Right<double> r = right_of<double, double>(b, right);
  for (std::size_t k = first; k < last; ++k) {
    const double value = b.forward[k] + cell_bound<double>(left_of<double, double>(b, k), r);
    result = value < result ? value : result;
  }
  return result;
}

LMQ_INLINE double behind_body(const BlockArrays& b, std::size_t left, std::size_t first, std::size_t last) {
  double result = kInfinity;
  if (last - first >= kLanes) {
    const Left<Doubles> p = left_of<Doubles, double>(b, left);
    Doubles best = Doubles{} + kInfinity;
    for (std::size_t k = first; k < last; k += kLanes) {
      k = k + kLanes <= last ? k : last - kLanes;
      const Doubles value =
          at<Doubles, Doubles>(b.onward, k) + cell_bound<Doubles>(p, right_of<Doubles, Doubles>(b, k));
      best = value < best ? value : best;
    }
    return least_lane(best);
  }
  const Left<double> p = left_of<double, double>(b, left);
  for (std::size_t k = first; k < last; ++k) {
    const double value = b.onward[k] + cell_bound<double>(p, right_of<double, double>(b, k));
    result = value < result ? value : result;
  }
  return result;
}

#define LMQ_PARTITION_SCANS(name, attribute)                                                \
  attribute void layer_##name(const LayerProblem& p) noexcept { layer_body(p); }            \
  attribute double before_##name(const BlockArrays& b, std::size_t first, std::size_t last, \
                                 std::size_t right) noexcept {                              \
    return before_body(b, first, last, right);                                              \
  }                                                                                         \
  attribute double behind_##name(const BlockArrays& b, std::size_t left, std::size_t first, \
                                 std::size_t last) noexcept {                               \
    return behind_body(b, left, first, last);                                               \
  }                                                                                         \
  constexpr PartitionScans scans_##name { layer_##name, before_##name, behind_##name }

LMQ_PARTITION_SCANS(baseline, );
#if defined(__x86_64__)
LMQ_PARTITION_SCANS(avx2, __attribute__((target("avx2"))));
LMQ_PARTITION_SCANS(avx512, __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,prefer-vector-width=512"))));
#endif

const PartitionScans& choose() noexcept {
  if (baseline_forced()) return scans_baseline;
  std::array<const PartitionScans*, 4> sets{};
  return *sets[partition_scan_sets(sets.data(), sets.size()) - 1];
}

}  // namespace

std::size_t partition_scan_sets(const PartitionScans** sets, std::size_t room) noexcept {
  std::size_t count = 0;
  const auto add = [&](const PartitionScans& set) {
    if (count < room) sets[count++] = &set;
  };
  add(scans_baseline);
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) add(scans_avx2);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw"))
    add(scans_avx512);
#endif
  return count;
}

const PartitionScans& partition_scans() noexcept {
  static const PartitionScans& chosen = choose();
  return chosen;
}

}  // namespace lmq
