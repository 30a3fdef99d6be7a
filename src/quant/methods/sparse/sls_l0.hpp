#pragma once
#include "lmq/quant/partition.hpp"
#include "sls_l1.hpp"

namespace lmq {

/// What becomes of a level at exactly 0.
enum class ZeroLevel : std::uint8_t {
  off,    ///< levels are where they are best
  first,  ///< the letter of ||alpha||_0 <= l: alpha_1 may be among the zeros, then the first level is 0 and is free
  exact,  ///< one level is 0, wherever it lies among the others
};

/// Squared error of cells of a chain; the cell that holds the point `zero` has the level 0.
struct ZeroPinnedCost {
  SquaredErrorCost free;
  const double* squares = nullptr;  ///< [m+1] prefix sums of a u^2
  std::size_t zero = 0;
  double operator()(std::size_t i, std::size_t j) const noexcept {
    if (i > zero || j <= zero) return free(i, j);
    const double loss = squares[j] - squares[i];
    return loss > 0 ? loss : 0.0;
  }
};

/// Exact solver of   min sum a (u - x)^2 + lambda * (number of levels)   or   ... subject to at most K levels,
/// with or without a level pinned at 0. A pinned level is a point of infinite weight at 0: the cost stays Monge, so the
/// engines of partition/engines.hpp solve it. Holds its scratch.
class SparseL0 {
 public:
  /// Ends of the cells of the best partition into at most `levels` levels, the pinned one among them; off: exactly
  /// min(levels, m).
  /// first: the better of levels - 1 free cells and of a first cell at 0 with levels - 1 free ones behind it.
  [[nodiscard]] const CellEnds& solve(SparseData data, std::size_t levels, ZeroLevel zero);
  /// The best partition when every level costs lambda > 0; the pinned one is free.
  [[nodiscard]] const CellEnds& solve_penalised(SparseData data, double lambda, ZeroLevel zero);
  /// After a solve: the cell whose level is exactly 0, or -1. It may hold no point (its ends are equal).
  [[nodiscard]] std::ptrdiff_t zero_cell() const noexcept { return zero_cell_; }
  /// Loss of the last solution.
  [[nodiscard]] double loss(SparseData data) const;

 private:
  struct Pinned {  // the chain with the point at 0
    std::vector<double> u, a, W, S, C, squares;
    std::size_t zero = 0;   // its index
    std::size_t first = 0;  // point of the data with which the chain begins; those before lie in the zero cell
    bool inserted = false;  // the data have no value 0
  };
  void chain(SparseData data, bool from_zero);
  void take(const CellEnds& found);
  void take_free(std::span<const std::uint32_t> found);
  [[nodiscard]] ZeroPinnedCost cost() const;
  [[nodiscard]] double before_chain(SparseData data) const;

  PartitionSolver partition_;
  Pinned pinned_;
  PenalisedPartition<SquaredErrorCost> free_;
  PenalisedPartition<ZeroPinnedCost> with_zero_;
  std::vector<double> W_, S_, C_;  // of the points alone
  CellEnds ends_;
  std::ptrdiff_t zero_cell_ = -1;
};

/// Prefix sums about the middle edge of points minus `centre`, compensated: W of a, S of a v, C of a v^2, [m + 1] each.
void prefix_sums(SparseData data, double centre, std::vector<double>& W, std::vector<double>& S,
                 std::vector<double>& C);

}  // namespace lmq
