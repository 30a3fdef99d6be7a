#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "level_sums.hpp"
#include "lmq/kernels/level_scan.hpp"

namespace lmq {

/// Levels of unbiased rounding: s edges of a line, the first and the last among them, that minimise the sum of C
/// between neighbours (see LevelSums). Among edges that is the optimum of all real levels, as long as the line is
/// resolved: the sum is convex and piecewise linear in each level, with its bends at the values.
///
/// Certified narrowing. Let level t lie in a block [u, v] and its neighbours at a and b. As a function of that level
/// alone the sum is convex and its slope rises at each value x by w (b - a), so between u and v it stays above the
/// chord over its ends by at worst
///   (b - a) * sum over u < x < v of w (x - u)(v - x) / (v - u) = (b - a) C(u, v) / (v - u)       ("slack").
/// Doing so level by level: over a box of blocks the sum is at least its minimum over the boxes' corners minus the
/// slacks, with b - a at its greatest. (Levels out of order are no trouble: C = 0 for them stays convex, and sorting
/// such levels never costs more.) A dynamic programme over corners, forwards and backwards, thus bounds every path with
/// level t in a given block from below; where the bound exceeds the cost of a known path the block is dropped. The
/// others are split. The slack falls with the square of the width, and is 0 for neighbouring values: then the programme
/// is exact.
class LevelNarrowing {
 public:
  struct Result {
    std::vector<std::uint32_t> path;       ///< edges of the levels, ascending (repeats where fewer suffice)
    double cost = 0;                       ///< of the path
    double bound = 0;                      ///< no levels cost less than this (cost, up to rounding, when it is exact)
    std::vector<std::uint32_t> open_bins;  ///< bins that may hold a level of a better path; ascending
  };
  enum class Engine : std::uint8_t {
    automatic,  ///< the quickest
    layered,    ///< the dynamic programme over all edges
    narrowing,
  };

  /// levels >= 2, a line of at least one edge. slack: stop as soon as cost <= bound * (1 + slack); then open_bins is
  /// empty. Same result for any instruction set.
  [[nodiscard]] Result solve(const LevelSums& line, std::size_t levels, double slack = 0,
                             Engine engine = Engine::automatic);
  /// Places looked at by the last solve: the work done, in nodes of the dynamic programmes.
  [[nodiscard]] std::uint64_t nodes() const noexcept { return nodes_seen_; }

 private:
  struct Interval {
    std::uint32_t first, last;  // edges
    double slope;               // C(first, last) / (x(last) - x(first))
  };
  struct Layer {
    std::vector<Interval> alive;                 // ascending; neighbours may share an edge
    std::vector<std::uint32_t> node;             // edges of the intervals, ascending
    std::vector<std::uint32_t> before;           // [alive] node of its first edge
    std::vector<double> slack;                   // [alive]
    std::vector<double> node_slack;              // [nodes] greatest of the intervals that meet there
    std::vector<double> x, P, H;                 // [nodes] as rows of the cells before it
    std::vector<double> next_x, next_P, next_H;  // [nodes] as candidates of the cells behind it
    std::vector<double> place;                   // [nodes] edge
    std::vector<double> forward, backward;
    std::vector<std::uint32_t> argument;
  };

  void start(std::size_t blocks);
  [[nodiscard]] std::vector<std::uint32_t> equal_cost_blocks(std::size_t blocks) const;
  [[nodiscard]] std::vector<std::uint32_t> greedy(double most, std::size_t limit) const;
  void fill(Layer& layer, std::vector<Interval>&& alive);
  [[nodiscard]] Interval interval(std::uint32_t first, std::uint32_t last) const;
  void choose_arithmetic(double most);
  void coordinates();
  void precise_layer(const Layer& column, bool forward, Layer& row);
  void slacks();
  void forwards();
  void backwards();
  void trace();
  void improve();
  [[nodiscard]] double rounding() const;
  void prune();
  [[nodiscard]] bool split();
  [[nodiscard]] bool certain() const;
  [[nodiscard]] double all_edges();
  void layered(Result& result);
  [[nodiscard]] std::vector<std::uint32_t> open_bins() const;

  const LevelSums* line_ = nullptr;
  std::size_t levels_ = 0;
  enum class Arithmetic : std::uint8_t {
    about_mean,  ///< coordinates of the whole line: quick
    about_path,  ///< coordinates about the best path, for each level its own
    precise,     ///< LevelSums::cost itself: for lines that span many orders of magnitude
  };
  Arithmetic arithmetic_ = Arithmetic::about_mean;
  std::vector<Layer> layer_;          // [levels]
  std::vector<std::uint32_t> path_;   // best so far
  std::vector<std::uint32_t> found_;  // of the last dynamic programme
  double cost_ = 0, bound_ = 0;
  std::uint64_t nodes_seen_ = 0;
  std::vector<double> base_, value_, reversed_[6];  // reversed_: six rows of numbers
  std::vector<std::uint32_t> argument_;
};

}  // namespace lmq
