#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lmq/quant/partition_engines.hpp"
#include "partition_scan.hpp"

namespace lmq {

/// Points on a line with prefix sums about a centre. Edge x lies between points x-1 and x; a threshold is an
/// edge 1..m-1.
struct LinePoints {
  std::size_t m = 0;
  const double* value = nullptr;    ///< [m] ascending, minus the centre
  const double* weight = nullptr;   ///< [m] > 0
  const double* W = nullptr;        ///< [m+1] sums of weight before edge x, counted from the middle edge
  const double* S = nullptr;        ///< [m+1] of weight * value
  const double* C = nullptr;        ///< [m+1] of weight * value^2
  const double* low = nullptr;      ///< bins only, [m]: first value that may lie in the bin, minus the centre
  const double* high = nullptr;     ///< bins only, [m]
  const double* scatter = nullptr;  ///< bins only, [m]
};

/// Exact optimal partition (sum of weighted squared errors) by certified narrowing.
///
/// Take any reference path r_0..r_K with levels c_t (means of its cells), theta_t the middle of c_t and c_{t+1}. With
///   s_t(x)   = sum of w (v - c_t) over the points before edge x,
///   phi_t(x) = 2 (c_{t+1} - c_t) * sum of w (v - theta_t) over the points before edge x,   minus its value at r_t,
/// the loss of any path b is exactly   const + sum_t phi_t(b_t) - sum_t M_t(b_{t-1}, b_t),
///   M_t(a, b) = (s_t(b) - s_t(a))^2 / (W(b) - W(a)).
/// A block is a run of neighbouring edges. Give the block R of threshold t a level c_R and its places the potential
///   g_R(x) = sum of w (v - c_R)^2 from the block's first edge R0 to x,
/// and add g of the left block and subtract g of the right block from every cell: the sum over a path stays, and with
/// c_R near the mean of the cell before R each term hardly depends on where in the blocks the thresholds lie. The
/// identity above with level c_R in place of c_t gives, for a in P and b in R,
///   loss(a, b) + g_P(a) - g_R(b) = sum of w (v - c_R)^2 from P0 to R0
///                                + 2 (c_R - c_P) * sum of w (v - (c_P + c_R) / 2) from P0 to a      ("potential")
///                                - (sum of w (v - c_R) from a to b)^2 / (W(b) - W(a)).              ("square / core")
/// Each of these sums over a part of a block lies between -w E(c - v)+ and w E(v - c)+ of the whole block, which the
/// block's mean, least and greatest value bound by a chord. Where blocks touch, loss(a, b) >= 0 serves instead
/// ("drop"). Chains of these bounds forwards (F) and backwards (G) bound from below every path whose t-th threshold
/// lies in R: where F + G exceeds the loss of a known path (plus 1e-10 of it) there is no optimal threshold. The other
/// blocks are split and looked at again; the gap falls with the square of the block width. At last the layered
/// recurrence runs inside the windows that are left, so the answer is always the global optimum: weak bounds cost time,
/// never truth.
///
/// A bin (values unknown, but their weight, mean, scatter and range) has an inside, which is a place of its own: all of
/// the above only used weight, mean and range of what lies between a block's first and last edge.
class Narrowing {
 public:
  /// The best partition into exactly `cells` cells, 1 <= cells <= m. Cost: see tests/bench/partition_bench.cpp.
  void solve(const LinePoints& points, std::size_t cells, CellEnds& ends);
  /// The same by the layered recurrence over all edges: O(cells m log m).
  void solve_layered(const LinePoints& points, std::size_t cells, CellEnds& ends);
  /// The same by E1 for a guessed penalty, which gives a best partition p into k cells, k near `cells`, and the layered
  /// recurrence between its ends: with d = cells - k > 0 some best partition q has p_{t-d} <= q_t <= p_t, with
  /// d < 0 p_t <= q_t <= p_{t-d}. (Where q is not inside, exchanging the parts of p and q that have crossed makes
  /// neither worse: the cost is Monge, and p is best for its number.) O(m log m + |d| m).
  void solve_interlaced(const LinePoints& points, std::size_t cells, CellEnds& ends);
  /// A guess at -d loss / d cells of the best partition, from a good one. O(m).
  [[nodiscard]] double slope(const LinePoints& points, std::size_t cells);
  /// Bins inside which a threshold of a partition of the true values may lie that is at least as good as `best`
  /// (the best one at bin edges) times 1 + 1e-10. Bins of one value are never among them.
  /// effort: pairs of blocks to look at in one stage before more bins are reported instead (about 1 ns each).
  [[nodiscard]] std::vector<std::uint32_t> open_bins(const LinePoints& points, const CellEnds& best, double effort);

 private:
  struct Layer {
    double level = 0, residual = 0;  // c_t; s_t over the reference cell (rounding only)
    double step = 0, theta = 0;      // 2 (c_{t+1} - c_t), theta_t: of the threshold after the cell
    std::uint32_t level_left = 0, level_right = 0, theta_left = 0, theta_right = 0;  // edges around c_t, theta_t
    double level_dip = 0, theta_dip = 0;  // how far s_t, phi_t may fall below level_left, theta_left (bins)
  };
  struct Place {
    std::uint32_t first, last;  // positions, inclusive
    bool operator==(const Place&) const = default;
  };

  void begin(const LinePoints& points, std::size_t cells, bool inside);
  void set_reference(const CellEnds& ends);
  [[nodiscard]] double s(std::size_t t, std::size_t x, std::size_t from) const;
  [[nodiscard]] double phi(std::size_t t, std::size_t x) const;
  [[nodiscard]] double squares(double level, std::size_t x, std::size_t from) const;
  [[nodiscard]] double reference_loss() const;
  [[nodiscard]] double reference_excess() const;
  void lloyd(CellEnds& ends, int rounds) const;

  void companded(std::size_t blocks);
  void first_path(CellEnds& ends) const;
  void add_place(std::vector<Place>& places, Place block) const;
  void all_places();
  void corners_of_places();
  void windows_of_places();
  void whole_windows();
  void windows_between(const CellEnds& other);
  void improve();
  double windowed(CellEnds& ends);

  [[nodiscard]] std::uint32_t left_edge(Place p) const { return inside_ ? p.first >> 1 : p.first; }
  [[nodiscard]] std::uint32_t right_edge(Place p) const { return inside_ ? (p.last + 1) >> 1 : p.last; }
  [[nodiscard]] bool wide(Place p) const { return p.first < p.last || (inside_ && p.first % 2 == 1); }
  [[nodiscard]] double rounding(std::size_t a, std::size_t b) const;
  void measure_places();
  void bound_forwards(double bound);
  void bound_backwards(double bound);
  void measure_place(std::size_t t, std::size_t k, double level);
  [[nodiscard]] BlockArrays arrays() const;
  void prune(double bound);
  [[nodiscard]] std::uint32_t cut(Place block) const;
  void split();
  [[nodiscard]] bool all_single() const;
  [[nodiscard]] double windows_price() const;
  [[nodiscard]] double stage_price() const;
  void narrow(bool to_the_end);

  LinePoints p_;
  PenalisedPartition<SquaredErrorCost> penalised_;
  const PartitionScans* scans_ = nullptr;
  std::size_t cells_ = 0;
  bool inside_ = false;  // places also inside bins: position 2x is edge x, 2x-1 inside bin x-1
  CellEnds reference_, path_, blocks_;
  std::vector<Layer> layer_;  // [cells + 1], 1-based
  double pairs_ = 0;          // of blocks bounded in the last stage, one way
  double most_pairs_ = 0;
  double loss_ = 0;  // of the reference path, absolute
  std::vector<double> measure_;

  std::vector<std::uint32_t> candidate_, candidate_at_, back_, limit_;  // windowed recurrence
  std::vector<double> base_, value_, shift_, weight_, row_shift_, row_weight_;

  std::vector<Place> place_, next_place_;                // alive blocks of all thresholds 0..cells, one after the other
  std::vector<std::uint32_t> place_at_, next_place_at_;  // [cells + 2]
  std::vector<double> forward_, backward_, onward_, phi_, w_first_, w_last_, level_of_, mean_, low_, ratio_, s_left_,
      s_right_, lower_, dip_, rise_, d_left_, d_right_;
};

}  // namespace lmq
