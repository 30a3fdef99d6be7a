#pragma once
#include <cstddef>
#include <cstdint>

namespace lmq {

/// One layer of the partition recurrence: value[r] = min over k < limit[r] of base[k] - (row_shift[r] - shift[k])^2 /
/// (row_weight[r] - weight[k]), argument[r] = smallest k that attains it. `base - ...` must be totally monotone (the
/// smallest arg-min does not fall with r), weight and row_weight ascending with row_weight[r] > weight[k] for k <
/// limit[r], limit ascending and >= 1. Cost O((rows + candidates) log rows).
struct LayerProblem {
  std::size_t candidates = 0;
  const double* base = nullptr;
  const double* shift = nullptr;
  const double* weight = nullptr;
  std::size_t rows = 0;
  const double* row_shift = nullptr;
  const double* row_weight = nullptr;
  const std::uint32_t* limit = nullptr;
  double* value = nullptr;
  std::uint32_t* argument = nullptr;
};

/// What the bounds of narrow.hpp know about the blocks of all thresholds, one array each. A block is left (P) or right
/// (R) of a cell.
struct BlockArrays {
  const double* forward;  ///< F: bound of everything up to the block
  const double* onward;   ///< H: bound of everything from the block on
  const double* w_first;  ///< W at its first edge
  const double* w_last;   ///< W at its last edge
  const double* level;    ///< c_R: level of the cell before it that slopes its potential
  const double* mean;     ///< of the points between its edges
  const double* low;      ///< least of these values
  const double* ratio;    ///< (greatest - mean) / (greatest - least), 0 for a single edge
  const double* s_left;   ///< P: s_{t+1} at the first edge, from the reference
  const double* s_right;  ///< R: s_t at the first edge
  const double* lower;    ///< R: c_t - c_R
  const double* dip;      ///< R: least of sum w (v - c_R) from the first edge to a place inside
  const double* rise;     ///< R: greatest of it
  const double* d_left;   ///< P: at most sum w (v - c_{t+1})^2 before the first edge, from the reference
  const double* d_right;  ///< R: at least the same for c_t, plus all of sum w (v - c_R)^2 inside
};

/// The loops for one instruction set; all give the same bits (no contraction, smallest index wins).
struct PartitionScans {
  void (*layer)(const LayerProblem&) noexcept;
  /// min over blocks P in [first, last) of forward[P] + bound of a cell from P to R; infinity when empty.
  double (*bound_before)(const BlockArrays&, std::size_t first, std::size_t last, std::size_t right) noexcept;
  /// min over blocks R in [first, last) of onward[R] + bound of a cell from P to R.
  double (*bound_behind)(const BlockArrays&, std::size_t left, std::size_t first, std::size_t last) noexcept;
};

/// The widest this machine has; the baseline when LMQ_ISA=baseline.
[[nodiscard]] const PartitionScans& partition_scans() noexcept;
/// Baseline, then every wider set this machine has (for tests that compare them).
[[nodiscard]] std::size_t partition_scan_sets(const PartitionScans** sets, std::size_t room) noexcept;

}  // namespace lmq
