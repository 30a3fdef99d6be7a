#include "lmq/kernels/level_scan.hpp"

#include <array>
#include <limits>

#include "vector_sets.hpp"

#pragma GCC diagnostic ignored "-Wpsabi"  // vectors are passed between inlined functions only

namespace lmq {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Best {
  double value;
  std::size_t index;
};

LMQ_INLINE Doubles load(const double* at) { return *reinterpret_cast<const LooseDoubles*>(at); }

// Smallest value of one row over [first, last), all of which lie before it; the smallest index among equals.
LMQ_INLINE Best scan_row(const LevelLayer& p, std::size_t row, std::size_t first, std::size_t last) {
  const double ru = p.row_u[row], rv = p.row_v[row];
  Best result{kInfinity, first};
  std::size_t k = first;
  if (last - first >= 2 * kLanes) {
    Doubles best = Doubles{} + kInfinity;
    Longs best_at = {}, at = {0, 1, 2, 3, 4, 5, 6, 7};
    at += static_cast<std::int64_t>(first);
    for (; k + kLanes <= last; k += kLanes) {
      const Doubles value = (load(p.base + k) + load(p.u + k) * ru) - load(p.v + k) * rv;
      const Longs better = value < best;
      best = better ? value : best;
      best_at = better ? at : best_at;
      at += static_cast<std::int64_t>(kLanes);
    }
    double values[kLanes];
    std::int64_t indices[kLanes];
    __builtin_memcpy(values, &best, sizeof values);
    __builtin_memcpy(indices, &best_at, sizeof indices);
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      const auto index = static_cast<std::size_t>(indices[lane]);
      if (values[lane] < result.value || (values[lane] == result.value && index < result.index))
        result = {values[lane], index};
    }
  }
  for (; k < last; ++k) {
    const double value = (p.base[k] + p.u[k] * ru) - p.v[k] * rv;
    if (value < result.value) result = {value, k};
  }
  return result;
}

// Number of candidates that lie before the row or at it, at least `least`.
LMQ_INLINE std::size_t limit_of(const LevelLayer& p, std::size_t row, std::size_t least) {
  std::size_t first = least, length = p.candidates - least;
  while (length > 0) {
    const std::size_t half = length / 2;
    if (p.place[first + half] <= p.row_place[row])
      first += half + 1, length -= half + 1;
    else
      length = half;
  }
  return first;
}

struct Span {
  std::uint32_t first_group, last_group, first, last;  // groups [first_group, last_group), candidates first..last
};

// The last row of every group of kLanes rows, by divide and conquer on the monotone arg-min.
LMQ_INLINE void last_rows(const LevelLayer& p, std::size_t skip) {
  std::array<Span, 64> stack;  // depth is at most log2(groups) + 1
  std::size_t depth = 0;
  const auto groups = static_cast<std::uint32_t>((p.rows - skip + kLanes - 1) / kLanes);
  stack[depth++] = {0, groups, 0, static_cast<std::uint32_t>(p.candidates - 1)};
  while (depth > 0) {
    Span s = stack[--depth];
    while (s.first_group < s.last_group) {
      const std::uint32_t group = s.first_group + (s.last_group - s.first_group) / 2;
      const std::size_t whole = skip + group * kLanes + (kLanes - 1), row = whole < p.rows ? whole : p.rows - 1;
      std::size_t last = s.last + std::size_t{1};
      if (p.place[s.last] > p.row_place[row]) last = limit_of(p, row, s.first);
      if (last <= s.first) last = s.first + 1;
      const Best best = scan_row(p, row, s.first, last);
      const auto split = static_cast<std::uint32_t>(best.index);
      p.value[row] = best.value;
      p.argument[row] = split;
      if (group + 1 < s.last_group) stack[depth++] = {group + 1, s.last_group, split, s.last};
      s.last_group = group;
      s.last = split;
    }
  }
}

// kLanes rows side by side over candidates first..last.
LMQ_INLINE void side_by_side(const LevelLayer& p, std::size_t row, std::size_t first, std::size_t last) {
  const Doubles ru = load(p.row_u + row), rv = load(p.row_v + row), place = load(p.row_place + row);
  const Doubles never = Doubles{} + kInfinity;
  Doubles best = never;
  Longs best_at = Longs{} + static_cast<std::int64_t>(first);
  for (std::size_t k = first; k <= last; ++k) {
    Doubles value = (p.base[k] + p.u[k] * ru) - p.v[k] * rv;
    value = place >= p.place[k] ? value : never;
    const Longs better = value < best;
    best = better ? value : best;
    best_at = better ? Longs{} + static_cast<std::int64_t>(k) : best_at;
  }
  *reinterpret_cast<LooseDoubles*>(p.value + row) = best;
  for (std::size_t lane = 0; lane < kLanes; ++lane) p.argument[row + lane] = static_cast<std::uint32_t>(best_at[lane]);
}

LMQ_INLINE void layer_body(const LevelLayer& p) {
  std::size_t skip = 0;
  for (; skip < p.rows && !(p.place[0] <= p.row_place[skip]); ++skip) p.value[skip] = kInfinity, p.argument[skip] = 0;
  if (p.rows - skip < kLanes) {
    std::size_t first = 0;
    for (std::size_t row = skip; row < p.rows; ++row) {
      const Best best = scan_row(p, row, first, limit_of(p, row, first));
      p.value[row] = best.value;
      p.argument[row] = static_cast<std::uint32_t>(first = best.index);
    }
    return;
  }
  last_rows(p, skip);
  std::size_t first = 0;
  for (std::size_t row = skip; row < p.rows; row += kLanes) {
    if (row + kLanes <= p.rows) {
      const std::size_t last = p.argument[row + kLanes - 1];
      side_by_side(p, row, first, last);
      first = last;
      continue;
    }
    const std::size_t last = p.argument[p.rows - 1];  // fewer are left: each for itself
    for (; row + 1 < p.rows; ++row) {
      std::size_t end = last + 1;
      if (p.place[last] > p.row_place[row]) end = limit_of(p, row, first);
      const Best best = scan_row(p, row, first, end);
      p.value[row] = best.value;
      p.argument[row] = static_cast<std::uint32_t>(first = best.index);
    }
  }
}

void scan_baseline(const LevelLayer& p) noexcept { layer_body(p); }
constexpr LevelScan kBaseline = scan_baseline;
#if defined(__x86_64__)
LMQ_TARGET_AVX2 void scan_avx2(const LevelLayer& p) noexcept { layer_body(p); }
LMQ_TARGET_AVX512 void scan_avx512(const LevelLayer& p) noexcept { layer_body(p); }
constexpr LevelScan kAvx2 = scan_avx2, kAvx512 = scan_avx512;
constexpr VectorSets<LevelScan> kSets{&kBaseline, &kAvx2, &kAvx512};
#else
constexpr VectorSets<LevelScan> kSets{&kBaseline};
#endif

}  // namespace

void level_scan_reference(const LevelLayer& p) noexcept {
  for (std::size_t row = 0; row < p.rows; ++row) {
    p.value[row] = kInfinity, p.argument[row] = 0;
    for (std::size_t k = 0; k < p.candidates && p.place[k] <= p.row_place[row]; ++k) {
      const double value = (p.base[k] + p.u[k] * p.row_u[row]) - p.v[k] * p.row_v[row];
      if (value < p.value[row]) p.value[row] = value, p.argument[row] = static_cast<std::uint32_t>(k);
    }
  }
}

std::size_t level_scan_sets(LevelScan* sets, std::size_t room) noexcept {
  std::array<const LevelScan*, 3> all{};
  const std::size_t count = kSets.list(all.data(), room < all.size() ? room : all.size());
  for (std::size_t s = 0; s < count; ++s) sets[s] = *all[s];
  return count;
}

LevelScan level_scan() noexcept {
  static const LevelScan chosen = kSets.best();
  return chosen;
}

}  // namespace lmq
