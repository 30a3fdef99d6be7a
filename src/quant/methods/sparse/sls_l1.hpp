#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "partition/engines.hpp"

namespace lmq {

/// Data of a sparse least squares problem (Wang et al. 2019, section 3): the distinct values u_1 < ... < u_m and their
/// weights a. With d_1 = u_1, d_k = u_k - u_{k-1} and x = V alpha, x_k is the sum of d_i alpha_i over i <= k, so a
/// level begins where alpha_k is not 0.
struct SparseData {
  std::span<const double> u;  ///< [m] strictly ascending, finite, m >= 1
  std::span<const double> a;  ///< [m] > 0; all 1: as published, where every distinct value counts the same
};

/// Is alpha_1 penalised like the others? `free` does not change when all values are shifted; `penalised` is the letter
/// of the paper and draws the first level to 0.
enum class SparseOffset : std::uint8_t { free, penalised };

/// One level of a solution: the points [begin, end) at `value`.
struct PooledBlock {
  double weight = 0;  ///< sum of a
  double rise = 0;    ///< sum of a (u - u_begin), >= 0: no cancellation, however small the gaps
  double value = 0;   ///< x
  std::uint32_t begin = 0, end = 0;
};

/// The edge (between points edge - 1 and edge) that vanishes at `lambda`: from there on both sides share a level.
struct VanishingEdge {
  std::uint32_t edge = 0;
  double lambda = 0;
};

/// Exact solver of   min 1/2 sum a (u - x)^2 + lambda ||alpha||_1.   The data are sorted, so the minimiser ascends, and
/// on ascending x the penalty is linear: with slopes c_k = 1 / d_k it is isotonic regression of shifted data, and
/// neighbours that violate the order are pooled (Barlow et al. 1972). With growing lambda blocks only merge, so the
/// whole path is one sequence of merges. Holds its scratch; results depend on the arguments only.
class SparseL1 {
 public:
  /// The least lambda that leaves one level (offset free). 0 for one point.
  [[nodiscard]] static double lambda_max(SparseData data);
  /// The solution for one lambda >= 0, finite; ascending values. Offset penalised: values of at least one sign are
  /// clipped at 0 as the paper's problem has it; then the first block's value is exactly 0. O(m).
  [[nodiscard]] std::span<const PooledBlock> solve(SparseData data, double lambda,
                                                   SparseOffset offset = SparseOffset::free);
  /// Minimises 1/2 sum a (u - x)^2 + slope[0] x_1 + sum over 0 < k < m of slope[k] (x_{k+1} - x_k) over ascending x.
  /// slope [m + 1], of any sign, slope[m] == 0. O(m).
  [[nodiscard]] std::span<const PooledBlock> pool(SparseData data, std::span<const double> slope);
  /// The path (offset free): the edges that vanish last, the last one first, at most most_levels - 1 of them. The
  /// solution of exactly K levels has the first K - 1 of them, for lambda from [K - 1].lambda (0 past the end) to
  /// [K - 2].lambda. Of edges that vanish together the one further left goes first. O(m log m).
  [[nodiscard]] std::span<const VanishingEdge> path(SparseData data, std::size_t most_levels);

 private:
  void load_slopes(SparseData data);
  void pool_points(SparseData data, std::size_t from, std::span<const double> slope, double scale);
  void pool_blocks(SparseData data, double lambda);
  void push(SparseData data, PooledBlock block, std::span<const double> slope, double scale);
  void clip(std::size_t zero_from);
  void prepare_path(SparseData data, std::size_t most_levels);
  void plant(SparseData data);
  [[nodiscard]] double meeting(SparseData data, std::uint32_t left, std::uint32_t right) const;
  void set_time(std::uint32_t edge, double time);
  [[nodiscard]] std::uint32_t soonest() const;
  std::uint32_t merge(SparseData data, std::uint32_t right);

  std::vector<double> slope_;  // c
  std::vector<PooledBlock> blocks_, next_blocks_;
  std::vector<double> tree_;                   // least meeting times of edges, leaves last
  std::vector<std::uint32_t> before_, after_;  // neighbours among the blocks that are left
  std::size_t leaves_ = 0;
  std::vector<VanishingEdge> path_;
};

/// Ends of the cells of a solution.
void cell_ends(std::span<const PooledBlock> blocks, CellEnds& ends);
/// Ends of the cells of the path's state of `levels` levels, of m points.
void cell_ends(std::span<const VanishingEdge> path, std::size_t levels, std::size_t m, CellEnds& ends);

}  // namespace lmq
