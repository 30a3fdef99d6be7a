#include "lmq/kernels/partition_scan.hpp"

#include <array>
#include <limits>

#include "vector_sets.hpp"

#pragma GCC diagnostic ignored "-Wpsabi"  // vectors are passed between inlined functions only

namespace lmq {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

constexpr std::size_t kFew = 16;  // so few candidates are quicker tried than divided

constexpr std::size_t kStride = kLanes * kLanes;

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

// Pillars: every kStride-th row and the last one, by divide and conquer on the monotone arg-min.
LMQ_INLINE void stride_rows(const LayerProblem& p) {
  std::array<Span, 64> stack;  // depth is at most log2(strides) + 1
  std::size_t depth = 0;
  const auto strides = static_cast<std::uint32_t>((p.rows + kStride - 1) / kStride);
  stack[depth++] = {0, strides, 0, static_cast<std::uint32_t>(p.candidates - 1)};
  while (depth > 0) {
    Span s = stack[--depth];
    while (s.row_first < s.row_last) {
      const std::uint32_t stride_row = (s.row_first + s.row_last) / 2;
      const std::size_t whole = stride_row * kStride + (kStride - 1), row = whole < p.rows ? whole : p.rows - 1;
      const std::size_t limit = p.limit[row];
      std::size_t last = s.last + std::size_t{1} < limit ? s.last + std::size_t{1} : limit;
      const std::size_t first = s.first < limit ? s.first : limit - 1;
      if (last <= first) last = first + 1;
      const Best best = scan(p, p.row_shift[row], p.row_weight[row], first, last);
      const auto split = static_cast<std::uint32_t>(best.index);
      p.value[row] = best.value;
      p.argument[row] = split;
      if (stride_row + 1 < s.row_last) stack[depth++] = {stride_row + 1, s.row_last, split, s.last};
      s.row_last = stride_row;
      s.last = split;
    }
  }
}

// kLanes rows side by side over candidates first..last. A candidate that is no edge before the row has no weight left
// and is passed over.
LMQ_INLINE Longs side_by_side(const LayerProblem& p, Doubles shift, Doubles weight, std::size_t first, std::size_t last,
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
  const Longs best_at = side_by_side(p, shift, weight, first, last, best);
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
  const Longs best_at = side_by_side(p, shift, weight, first, last, best);
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
  if (!few) stride_rows(p);
  std::size_t first = 0;
  for (std::size_t stride_row = 0; stride_row < p.rows; stride_row += kStride) {
    const std::size_t end = stride_row + kStride < p.rows ? stride_row + kStride : p.rows;
    if (!few && end - stride_row > kLanes) spread_rows(p, stride_row, end, first, p.argument[end - 1]);
    for (std::size_t row = stride_row; row < end; row += kLanes) {
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

#define LMQ_PARTITION_SCANS(name, attribute)                                     \
  attribute void layer_##name(const LayerProblem& p) noexcept { layer_body(p); } \
  constexpr PartitionScans scans_##name { layer_##name }

LMQ_PARTITION_SCANS(baseline, LMQ_TARGET_BASELINE);
#if defined(__x86_64__)
LMQ_PARTITION_SCANS(avx2, LMQ_TARGET_AVX2);
LMQ_PARTITION_SCANS(avx512, LMQ_TARGET_AVX512);
constexpr VectorSets<PartitionScans> kSets{&scans_baseline, &scans_avx2, &scans_avx512};
#else
constexpr VectorSets<PartitionScans> kSets{&scans_baseline};
#endif

}  // namespace

std::size_t partition_scan_sets(const PartitionScans** sets, std::size_t room) noexcept {
  return kSets.list(sets, room);
}

const PartitionScans& partition_scans() noexcept {
  static const PartitionScans& chosen = kSets.best();
  return chosen;
}

}  // namespace lmq
