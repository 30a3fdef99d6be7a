#include "lmq/kernels/row_scan.hpp"

#include <limits>

#include "vector_sets.hpp"

#pragma GCC diagnostic ignored "-Wpsabi"  // vectors are passed between inlined functions only

namespace lmq {
namespace {

using Edge = std::ptrdiff_t;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr Edge kFar = 4;  // predecessors that lie further away than those that every row tries come four at a time

/// Vectors of doubles as wide as the registers: the compiler takes wider ones apart lane by lane.
template <std::size_t kBytes>
struct Lanes;

template <>
struct Lanes<16> {
  using V = double __attribute__((vector_size(16)));
  using Loose = double __attribute__((vector_size(16), aligned(8), may_alias));
  using Index = std::int64_t __attribute__((vector_size(16)));
  static constexpr V kDown = {1, 0};
  // Lanes move down by one, the first of b comes in.
  static LMQ_INLINE V shifted(V a, V b) { return __builtin_shuffle(a, b, Index{1, 2}); }
  static LMQ_INLINE V lowest(V a) {
    const V b = __builtin_shuffle(a, Index{1, 0});
    return a < b ? a : b;
  }
};

template <>
struct Lanes<32> {
  using V = double __attribute__((vector_size(32)));
  using Loose = double __attribute__((vector_size(32), aligned(8), may_alias));
  using Index = std::int64_t __attribute__((vector_size(32)));
  static constexpr V kDown = {3, 2, 1, 0};
  static LMQ_INLINE V shifted(V a, V b) { return __builtin_shuffle(a, b, Index{1, 2, 3, 4}); }
  static LMQ_INLINE V lowest(V a) {
    V b = __builtin_shuffle(a, Index{2, 3, 0, 1});
    a = a < b ? a : b;
    b = __builtin_shuffle(a, Index{1, 0, 3, 2});
    return a < b ? a : b;
  }
};

/// Loops whose rows all try kNear predecessors: too few are many steps that differ from row to row, too many are work.
template <std::size_t kBytes, Edge kNear>
struct Rows {
  static_assert(kNear <= static_cast<Edge>(kRowPad));
  using Of = Lanes<kBytes>;
  using V = typename Of::V;
  static constexpr std::size_t kWidth = kBytes / sizeof(double), kCount = kNear / kWidth, kFarCount = kFar / kWidth;
  struct Block {
    V v[kCount];
  };

  static LMQ_INLINE V load(const double* from) { return *reinterpret_cast<const typename Of::Loose*>(from); }
  static LMQ_INLINE V all(double x) { return V{} + x; }

  // Cost of the cells (i, j] .. (i + kWidth - 1, j]; of one point it may be anything.
  template <bool kWeighted>
  static LMQ_INLINE V cost(const RowPoints& p, Edge i, Edge j) {
    const V b = p.S[j] - load(p.S + i), c = p.C[j] - load(p.C + i);
    V x;
    if constexpr (kWeighted)
      x = c - b * b / (p.W[j] - load(p.W + i));
    else
      x = c - b * b * load(p.inverse + (i - j));
    return x > 0 ? x : V{};
  }

  // The least of all lanes, in all lanes.
  static LMQ_INLINE V lowest(const Block& x) {
    V low = x.v[0];
    for (std::size_t k = 1; k < kCount; ++k) low = x.v[k] < low ? x.v[k] : low;
    return Of::lowest(low);
  }

  /// Best value of each lane and how far before the row it is (negative: the least is the smallest index).
  struct Best {
    Block value, behind;
    // kFar predecessors from i on, behind those seen before.
    template <bool kWeighted>
    LMQ_INLINE void add(const RowPoints& p, const double* f, double penalty, Edge i, Edge j) {
      for (std::size_t k = 0; k < kFarCount; ++k) {
        const Edge from = i + static_cast<Edge>(k * kWidth);
        const V x = load(f + from) + (cost<kWeighted>(p, from, j) + penalty);
        V& best = value.v[k];
        V& at = behind.v[k];
        const auto better = x <= best;  // it lies before the one it ties with
        best = better ? x : best;
        at = better ? static_cast<double>(from - j) + (static_cast<double>(kWidth - 1) - Of::kDown) : at;
      }
    }
    // How far behind the row the first of those is whose value is `low`, in all lanes.
    LMQ_INLINE V place(V low) const {
      Block at;
      for (std::size_t k = 0; k < kCount; ++k) at.v[k] = value.v[k] == low ? behind.v[k] : V{};
      return lowest(at);
    }
  };

  // The nearest predecessors last - 7 .. last of row j, whose f are given.
  template <bool kWeighted>
  static LMQ_INLINE Best nearest(const RowPoints& p, const Block& f, double penalty, Edge last, Edge j) {
    Best best;
    for (std::size_t k = 0; k < kCount; ++k) {
      const Edge from = last - (kNear - 1) + static_cast<Edge>(k * kWidth);
      best.behind.v[k] = static_cast<double>(from + static_cast<Edge>(kWidth - 1) - j) - Of::kDown;
      V x = cost<kWeighted>(p, from, j);
      if (kWeighted && k + 1 == kCount) x = best.behind.v[k] == -1.0 ? V{} : x;
      best.value.v[k] = f.v[k] + (x + penalty);
    }
    return best;
  }

  // The cell of one point is kept apart: so a row waits for the one before by an addition and a comparison only, and by
  // its other predecessors for the one before that.
  template <bool kWeighted>
  static LMQ_INLINE void penalised(const RowPoints& p, const PenalisedRows& r) {
    Block ring;  // f of the kNear edges before the last one
    for (std::size_t k = 0; k < kCount; ++k) ring.v[k] = all(kInfinity);
    V last{}, before = all(kInfinity);  // f of the last two edges
    for (Edge k = -static_cast<Edge>(kRowPad); k < 0; ++k) r.f[k] = kInfinity;
    r.f[0] = 0;
    Edge first = 0;
    for (Edge j = 1; j <= static_cast<Edge>(p.m); ++j) {
      for (std::size_t k = 0; k + 1 < kCount; ++k) ring.v[k] = Of::shifted(ring.v[k], ring.v[k + 1]);
      ring.v[kCount - 1] = Of::shifted(ring.v[kCount - 1], before);
      Best best = nearest<kWeighted>(p, ring, r.penalty, j - 2, j);
      for (Edge i = j - 1 - kNear - kFar; i + kFar > first; i -= kFar)
        best.template add<kWeighted>(p, r.f, r.penalty, i, j);
      const V least = lowest(best.value), single = last + r.penalty;
      before = last;
      last = single < least ? single : least;
      const V place = single < least ? all(-1) : best.place(least);
      first = j + static_cast<Edge>(place[0]);
      r.f[j] = last[0];
      r.back[j] = static_cast<std::uint32_t>(first);
    }
  }

  // One cell: points 1 .. j for low <= j <= high.
  template <bool kWeighted>
  static LMQ_INLINE void first_layer(const RowPoints& p, double* now, Edge low, Edge high) {
    for (Edge j = low; j <= high; ++j) {
      const double b = p.S[j] - p.S[0], c = p.C[j] - p.C[0];
      const double x = kWeighted ? c - b * b / (p.W[j] - p.W[0]) : c - b * b * p.inverse[-j];
      now[j] = j > 1 && x > 0 ? x : 0.0;
    }
  }

  template <bool kWeighted>
  static LMQ_INLINE void windows(const RowPoints& p, const WindowRows& r) {
    double *before = r.before, *now = r.now;
    const auto clear = [](double* row, Edge low) {
      for (Edge k = 1; k <= static_cast<Edge>(kRowPad); ++k) row[low - k] = kInfinity;
    };
    r.at[1] = 0;
    std::uint32_t next = r.high[1] - r.low[1] + 1;
    for (std::uint32_t k = 0; k < next; ++k) r.back[k] = 0;
    clear(before, r.low[1]);
    first_layer<kWeighted>(p, before, r.low[1], r.high[1]);
    for (std::size_t t = 2; t <= r.cells; ++t) {
      const Edge low = r.low[t - 1], high = r.high[t - 1];
      r.at[t] = next;
      clear(now, r.low[t]);
      Edge first = low;
      for (Edge j = r.low[t]; j <= static_cast<Edge>(r.high[t]); ++j) {
        const Edge last = high < j - 1 ? high : j - 1;
        Block f;
        for (std::size_t k = 0; k < kCount; ++k)
          f.v[k] = load(before + (last - (kNear - 1)) + static_cast<Edge>(k * kWidth));
        Best best = nearest<kWeighted>(p, f, 0.0, last, j);
        for (Edge i = last - (kNear - 1) - kFar; i + kFar > first; i -= kFar)
          best.template add<kWeighted>(p, before, 0.0, i, j);
        const V least = lowest(best.value);
        const Edge index = j + static_cast<Edge>(best.place(least)[0]);
        now[j] = least[0];
        r.back[next++] = static_cast<std::uint32_t>(index);
        first = index;
      }
      double* const done = before;
      before = now;
      now = done;
    }
  }
};

template <std::size_t kBytes, Edge kNear>
LMQ_INLINE void penalised_near(const RowPoints& points, const PenalisedRows& rows) {
  if (points.inverse != nullptr)
    Rows<kBytes, kNear>::template penalised<false>(points, rows);
  else
    Rows<kBytes, kNear>::template penalised<true>(points, rows);
}

template <std::size_t kBytes, Edge kNear>
LMQ_INLINE void windows_near(const RowPoints& points, const WindowRows& rows) {
  if (points.inverse != nullptr)
    Rows<kBytes, kNear>::template windows<false>(points, rows);
  else
    Rows<kBytes, kNear>::template windows<true>(points, rows);
}

#define LMQ_ROW_SCANS(name, bytes, attribute)                                                       \
  attribute void penalised_##name(const RowPoints& points, const PenalisedRows& rows) noexcept {    \
    points.wide ? penalised_near<bytes, 12>(points, rows) : penalised_near<bytes, 8>(points, rows); \
  }                                                                                                 \
  attribute void windows_##name(const RowPoints& points, const WindowRows& rows) noexcept {         \
    points.wide ? windows_near<bytes, 12>(points, rows) : windows_near<bytes, 8>(points, rows);     \
  }                                                                                                 \
  constexpr RowScans scans_##name { penalised_##name, windows_##name }

LMQ_ROW_SCANS(baseline, 16, LMQ_TARGET_BASELINE);
#if defined(__x86_64__)
LMQ_ROW_SCANS(avx2, 32, LMQ_TARGET_AVX2);
// Rows are short: registers of 64 bytes were half as fast (Zen 4).
constexpr VectorSets<RowScans> kSets{&scans_baseline, &scans_avx2};
#else
constexpr VectorSets<RowScans> kSets{&scans_baseline};
#endif

}  // namespace

std::size_t row_scan_sets(const RowScans** sets, std::size_t room) noexcept { return kSets.list(sets, room); }

const RowScans& row_scans() noexcept {
  static const RowScans& chosen = kSets.best();
  return chosen;
}

}  // namespace lmq
