#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "lmq/kernels/row_scan.hpp"
#include "narrow.hpp"

namespace lmq {

/// Optimal partition into cells of few points: E1 and the layered recurrence, both a row of predecessors at a time.
///
/// E1 for a penalty gives a best partition p into k cells. k == cells: the answer. Else some best partition q lies
/// between its ends (Narrowing::solve_interlaced says why): p_{t-d} <= q_t <= p_t for d = cells - k > 0, p_t <= q_t <=
/// p_{t-d} for d < 0. Where these windows are narrow the layered recurrence inside them gives the answer, else a better
/// penalty is tried.
class RowPartition {
 public:
  /// True when that is the quickest way whatever the points are; O(1).
  [[nodiscard]] static bool always_suits(std::size_t m, std::size_t cells);
  /// True when that is the quickest way, as far as can be told beforehand. 1 < cells < m; O(m).
  /// When true, solve with the same arguments comes next.
  [[nodiscard]] bool is_preferable(const SortedPoints& points, bool unit, std::size_t cells);
  /// The best partition into exactly `cells` cells, 1 < cells < m. points: W, S, C readable kRowPad places before edge
  /// 0. unit: all weights are 1. About 100 + m (m / cells) / 4 vectors of 8 predecessors, twice.
  void solve(const SortedPoints& points, bool unit, std::size_t cells, CellEnds& ends);

 private:
  struct Found {
    double cells = 0, penalty = 0, loss = 0;
  };
  void measure(const SortedPoints& points, bool unit);
  [[nodiscard]] double first_penalty(bool unit) const;
  [[nodiscard]] double next_penalty(const Found& now, int run) const;
  void run(double penalty);
  void whole_windows();
  std::size_t windows_of_path();
  void layers(CellEnds& ends);

  RowPoints p_;
  std::size_t cells_ = 0;
  CellEnds path_;
  bool measured_ = false;  // by is_preferable, for the call of solve that follows
  Found few_, many_;
  std::vector<std::uint32_t> low_, high_, back_, window_back_, at_;
  std::vector<double> f_, g_, inverse_;
  std::vector<double> measure_;  // [m]: sums of (gap^2 weight)^(1/3), of which cells have equal shares, roughly
};

}  // namespace lmq
