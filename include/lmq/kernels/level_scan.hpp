#pragma once
#include <cstddef>
#include <cstdint>

namespace lmq {

/// One layer of the recurrence for stochastic levels:
///   value[r] = min over k with place[k] <= row_place[r] of base[k] + u[k] * row_u[r] - v[k] * row_v[r],
/// argument[r] = smallest k that attains it. Places of candidates and of rows strictly ascend, and the matrix is
/// totally monotone (the smallest arg-min does not fall with r). A row before every candidate has value infinity,
/// argument 0. Cost O((rows + candidates) log rows), rounded without fused operations.
struct LevelLayer {
  std::size_t candidates = 0;
  const double* base = nullptr;
  const double* u = nullptr;
  const double* v = nullptr;
  const double* place = nullptr;
  std::size_t rows = 0;
  const double* row_u = nullptr;
  const double* row_v = nullptr;
  const double* row_place = nullptr;
  double* value = nullptr;
  std::uint32_t* argument = nullptr;
};

using LevelScan = void (*)(const LevelLayer&) noexcept;

/// The widest this machine has; the plain one when LMQ_ISA=baseline. All give the same bits.
[[nodiscard]] LevelScan level_scan() noexcept;
/// Baseline, then every wider set this machine has (for tests that compare them).
[[nodiscard]] std::size_t level_scan_sets(LevelScan* sets, std::size_t room) noexcept;
/// Every candidate for every row: O(rows * candidates).
void level_scan_reference(const LevelLayer& layer) noexcept;

}  // namespace lmq
