#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engines.hpp"
#include "lmq/kernels/partition_scan.hpp"

namespace lmq {

/// Points on a line with prefix sums about a centre. Edge x lies between points x-1 and x; a threshold is an
/// edge 1..m-1.
struct SortedPoints {
  std::size_t m = 0;
  const double* value = nullptr;    ///< [m] ascending, minus the centre
  const double* weight = nullptr;   ///< [m] > 0
  const double* W = nullptr;        ///< [m+1] sums of weight before edge x, counted from the middle edge
  const double* S = nullptr;        ///< [m+1] of weight * value
  const double* C = nullptr;        ///< [m+1] of weight * value^2
  const double* low = nullptr;      ///< bins only, [m]: first value that may lie in the bin, minus the centre
  const double* high = nullptr;     ///< bins only, [m]; low[i] == high[i]: one value
  const double* scatter = nullptr;  ///< bins only, [m]
};

/// Optimal partition (sum of weighted squared errors) by certified narrowing.
///
/// Recurrence. Take any reference path r_0..r_K with levels c_t (means of its cells), theta_t the middle of c_t and
/// c_{t+1}. With
///   s_t(x)   = sum of w (v - c_t) over the points before edge x,
///   phi_t(x) = 2 (c_{t+1} - c_t) * sum of w (v - theta_t) over the points before edge x,   minus its value at r_t,
/// the loss of any path b is exactly   const + sum_t phi_t(b_t) - sum_t M_t(b_{t-1}, b_t),
///   M_t(a, b) = (s_t(b) - s_t(a))^2 / (W(b) - W(a)).
/// Edges come in as points (W, S) only, and near the reference nothing cancels.
///
/// Bound. A block is a run of points, or a bin whose values are not known: weight, mean and range are. For given levels
/// c the loss is sum w v^2 + sum w h(v), h(v) = min_l (c_l^2 - 2 c_l v): concave. So the true loss is at most what it
/// would be with each block drawn together to its mean, and at least (the sum of w v^2 being what it is) what it would
/// be with each block pushed apart to the ends of its range, mean and weight kept. This holds for all levels, hence for
/// the best ones: both are partition problems of points again. The second differs from the first by one more place for
/// thresholds in each block, inside, between its two points: (W, S) = (W0 + p, S0 + p low), p = weight * (high - mean)
/// / (high - low). Thresholds inside the same block may have a cell of no weight between them. A true threshold inside
/// the block's range is a threshold at that place.
///
/// Stages. Forwards and backwards, the recurrence gives for every place of every threshold the least bound of a path
/// through it; places above the loss of a known path (plus 1e-10 of it, for rounding) hold no threshold of an optimum.
/// Blocks that are left are cut in four and looked at again: the gap between bound and known path falls by the square.
/// At last all places are edges, and the answer is the global optimum; or they are inside bins, and the answer lies
/// within the gap. Weak bounds cost time, never truth.
class Narrowing {
 public:
  /// The best partition into exactly `cells` cells, 1 <= cells <= m. Cost: see tests/bench/partition_bench.cpp.
  void solve(const SortedPoints& points, std::size_t cells, CellEnds& ends);
  /// The same by the layered recurrence over all edges: O(cells m log m).
  void solve_layered(const SortedPoints& points, std::size_t cells, CellEnds& ends);
  /// The same by E1 for a guessed penalty, which gives a best partition p into k cells, k near `cells`, and the layered
  /// recurrence between its ends: with d = cells - k > 0 some best partition q has p_{t-d} <= q_t <= p_t, with
  /// d < 0 p_t <= q_t <= p_{t-d}. (Where q is not inside, exchanging the parts of p and q that have crossed makes
  /// neither worse: the cost is Monge, and p is best for its number.) O(m log m + |d| m).
  void solve_interlaced(const SortedPoints& points, std::size_t cells, CellEnds& ends);
  /// A guess at -d loss / d cells of the best partition, from a good one. O(m).
  [[nodiscard]] double slope(const SortedPoints& points, std::size_t cells);
  /// A good partition of bins at their edges (2 <= cells < m), and how far at most its loss lies above that of the best
  /// partition of the true values, as a part of it. Ends as soon as that is at most `closed`; else `open` names the
  /// bins, not of one value, inside which a threshold of the best one may lie, ascending.
  double bracket(const SortedPoints& bins, std::size_t cells, double closed, CellEnds& ends,
                 std::vector<std::uint32_t>& open);

 private:
  struct Layer {
    double level = 0, residual = 0;  // c_t; s_t over the reference cell (rounding only)
    double step = 0, theta = 0;      // 2 (c_{t+1} - c_t), theta_t: of the threshold after the cell
  };

  void begin(const SortedPoints& points, std::size_t cells);
  void at_edges();
  void set_reference(const CellEnds& ends);
  [[nodiscard]] double s(std::size_t t, std::size_t x, std::size_t from) const;
  [[nodiscard]] double phi(std::size_t t, std::size_t x) const;
  [[nodiscard]] double reference_loss() const;
  [[nodiscard]] double excess(const CellEnds& ends) const;
  void lloyd(CellEnds& ends, int rounds) const;

  void companded(std::size_t blocks);
  void first_path(CellEnds& ends) const;
  void whole_windows();
  void windows_between(const CellEnds& other);
  void load_layer(std::size_t t);
  void solve_layer(std::size_t columns, std::size_t rows, std::uint32_t* argument);
  double forwards();
  void backwards();
  void trace(CellEnds& path) const;
  double windowed(CellEnds& ends);

  [[nodiscard]] double block_low(std::size_t k) const;
  [[nodiscard]] double block_high(std::size_t k) const;
  void measure_blocks();
  void all_places();
  [[nodiscard]] bool edges_of_path(CellEnds& path) const;
  void look();
  void drop(double bound);
  [[nodiscard]] bool open_blocks();
  [[nodiscard]] std::uint32_t cut(std::uint32_t first, std::uint32_t end) const;
  void split();
  [[nodiscard]] bool narrow(double closed);

  SortedPoints p_;
  PenalisedPartition<SquaredErrorCost> penalised_;
  const PartitionScans* scans_ = nullptr;
  std::size_t cells_ = 0;
  CellEnds reference_, path_;
  std::vector<Layer> layer_;  // [cells + 1], 1-based
  std::vector<double> measure_;
  double loss_ = 0;            // of the reference path, absolute
  double best_ = 0, gap_ = 0;  // excess of the best path known, and how far at most it is from the optimum

  CellEnds blocks_, new_blocks_;  // ends of the stage's blocks: block k is points blocks_[k] .. blocks_[k+1] - 1
  std::vector<double> block_w_, block_s_;  // (W, S) of its places: 2k the edge before block k, 2k+1 inside it
  std::vector<bool> open_;
  std::vector<std::uint32_t> block_at_;  // number of an old block's first part

  bool inside_ = false;                                   // candidates are places of blocks, not edges of points
  const double *place_w_ = nullptr, *place_s_ = nullptr;  // (W, S) of the candidates
  std::vector<std::uint32_t> candidate_, candidate_at_;   // of each threshold 0..cells, one after the other
  std::vector<std::uint32_t> new_candidate_, back_, limit_, argument_;
  std::vector<double> forward_, backward_, base_, value_, shift_, weight_, row_shift_, row_weight_;
};

}  // namespace lmq
