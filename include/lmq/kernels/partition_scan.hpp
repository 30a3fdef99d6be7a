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

/// The loops for one instruction set; all give the same bits (no contraction, smallest index wins).
struct PartitionScans {
  void (*layer)(const LayerProblem&) noexcept;
};

/// The widest this machine has and LMQ_ISA allows.
[[nodiscard]] const PartitionScans& partition_scans() noexcept;
/// Baseline, then every wider set this machine has (for tests that compare them).
[[nodiscard]] std::size_t partition_scan_sets(const PartitionScans** sets, std::size_t room) noexcept;

}  // namespace lmq
