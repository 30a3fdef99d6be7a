#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "lmq/quant/group.hpp"

namespace lmq {

class LayeredPartition;

/// A partition whose loss is proven to lie at most this part above the optimum is final.
inline constexpr double kClosedGap = 1e-9;

/// Exact optimal partition of points on a line into at most K cells: minimises the sum over cells of
/// weight * (value - weighted mean of the cell)^2. Holds its scratch: one solver per thread, no allocation once warm.
/// Results depend on the arguments only. Among equal optima the smaller index wins, as far as rounding tells them
/// apart; the loss is optimal to about 1e-12 relative. Prefix sums are compensated and centred on the middle point, so
/// that far outliers do not blur the rest.
class PartitionSolver {
 public:
  enum class Engine : std::uint8_t {
    automatic,   ///< the quickest for (m, K)
    layered,     ///< divide and conquer over all points
    lagrangian,  ///< E2
    interlaced,  ///< E1 once, then layered between the ends it found
    rows,        ///< E1 and layered, vectors of predecessors at a time: for cells of few points
    narrowing,  ///< certified narrowing (src/quant/partition/narrow.hpp), then layered inside the windows that are left
  };

  PartitionSolver();
  PartitionSolver(PartitionSolver&&) noexcept;
  PartitionSolver& operator=(PartitionSolver&&) noexcept;
  ~PartitionSolver();

  /// values  [m] strictly ascending, finite, 1 <= m < 2^31
  /// weights [m] finite, >= 0, or empty: all ones. Points of weight 0 count 2^-40 of the mean weight; all zero: as
  /// ones. Returns the ends of the cells (min(K, m) cells), valid until the next call.
  [[nodiscard]] std::span<const std::uint32_t> solve(std::span<const double> values, std::span<const double> weights,
                                                     std::size_t cells, Engine engine = Engine::automatic);
  /// Loss of the last result of solve, summed anew over the points in order.
  [[nodiscard]] double loss() const;
  /// Levels of the last result: weighted means; a cell of one point has that very value.
  [[nodiscard]] std::vector<double> levels() const;
  /// Loss of every K = 1 .. most_cells (E3); [0] = infinity.
  [[nodiscard]] LayeredPartition all(std::span<const double> values, std::span<const double> weights,
                                     std::size_t most_cells);

  /// Levels for floats in ascending order, equal ones allowed. weights [n] finite, >= 0 or empty: all ones; all zero
  /// counts as ones, less than kMinWeight of the largest as that. levels [>= min(K, n)]; returns how many were
  /// written, ascending. n >= 1.
  std::size_t fit_sorted(std::span<const float> sorted, std::span<const float> weights, std::size_t cells,
                         std::span<float> levels);
  /// The same for values in any order.
  std::size_t fit_values(std::span<const float> values, std::span<const float> weights, std::size_t cells,
                         std::span<float> levels);

  /// Partition of a group at bin edges (cells of whole bins); ends as for solve. The best one when the group is
  /// resolved, else see gap().
  [[nodiscard]] std::span<const std::uint32_t> solve_group(const Group& group, std::size_t cells);
  /// After solve_group: no partition of the true values, into intervals of any kind, has a loss below that of the
  /// result times 1 - gap. 0 for a resolved group (the result is the optimum). Proof: src/quant/partition/narrow.hpp.
  [[nodiscard]] double gap() const;
  /// After solve_group: empty when gap() <= kClosedGap; else the bins (ascending) inside which a threshold of the best
  /// partition of the true values may lie.
  [[nodiscard]] std::span<const std::uint32_t> open_bins() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lmq
