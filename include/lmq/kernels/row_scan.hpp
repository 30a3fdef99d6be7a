#pragma once
#include <cstddef>
#include <cstdint>

namespace lmq {

/// Points on a line as prefix sums before edge x = 0 .. m of weight, weight * value and weight * value^2.
/// All arrays of edges can be read kRowPad places before edge 0.
struct RowPoints {
  std::size_t m = 0;
  const double *W = nullptr, *S = nullptr, *C = nullptr;
  const double* inverse = nullptr;  ///< all weights 1: inverse[-k] = 1 / k for k = 2 .. m + kRowPad, inverse[-1] = inf
  bool wide = false;                ///< cells are of about 8 points rather than of 4 or fewer: which loop is quicker
};
inline constexpr std::size_t kRowPad = 12;

/// E1: f[0] = 0, f[j] = min over i < j of f[i] + (cost of points i+1 .. j) + penalty; back[j] the smallest i that
/// attains it. f [-kRowPad .. m], back [m + 1].
struct PenalisedRows {
  double penalty = 0;
  double* f = nullptr;
  std::uint32_t* back = nullptr;
};

/// Layers t = 1 .. cells: now[j] = min over low[t-1] <= i <= high[t-1], i < j of before[i] + (cost of i+1 .. j) for
/// low[t] <= j <= high[t]; the smallest i that attains it goes to back, layer after layer, from at[t] on. low and high
/// [cells + 1] ascend strictly; low[0] = high[0] = 0. now, before [-kRowPad .. m]: scratch.
struct WindowRows {
  std::size_t cells = 0;
  const std::uint32_t *low = nullptr, *high = nullptr;
  double *before = nullptr, *now = nullptr;
  std::uint32_t *back = nullptr, *at = nullptr;
};

/// Recurrences of an optimal partition, one row (all predecessors of an edge) after the other: a row costs as many
/// vectors as the cell of its best predecessor needs, so this is for cells of few points.
/// cost = max(C - S * S / W, 0) of differences, S * S * inverse where weights are 1; of one point 0. Every set gives
/// the same bits: they try the same predecessors, and take the least cost and the smallest index.
struct RowScans {
  void (*penalised)(const RowPoints& points, const PenalisedRows& rows) noexcept;
  void (*windows)(const RowPoints& points, const WindowRows& rows) noexcept;
};

/// The widest this machine has and LMQ_ISA allows.
[[nodiscard]] const RowScans& row_scans() noexcept;
/// Baseline, then every wider set this machine has (for tests that compare them).
[[nodiscard]] std::size_t row_scan_sets(const RowScans** sets, std::size_t room) noexcept;

}  // namespace lmq
