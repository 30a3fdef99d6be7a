#pragma once
#include <memory>
#include <string>

#include "lmq/kernels/sort_floats.hpp"
#include "lmq/quant/quantizer.hpp"
#include "sls_cluster.hpp"
#include "sls_l0.hpp"
#include "sls_l1.hpp"
#include "sls_l1l2.hpp"
#include "sls_options.hpp"

namespace lmq {

/// Buffers of the sparse least squares methods, one set for a thread.
struct SparseScratch {
  std::vector<float> sorted, sorted_weights;
  SortScratch sort;
  std::vector<double> u, mass, ones;  ///< distinct values, their weights, and as many 1
  std::vector<double> scatter;        ///< inside each point, where points are bins; else empty
  std::vector<float> first;           ///< first value that may lie in each point
  SparseL1 l1;
  SparseL1L2 l1l2;
  SparseL0 l0;
  SeededLloyd lloyd;
  CellEnds ends;                  ///< of the solution
  std::ptrdiff_t zero_cell = -1;  ///< the cell whose level is exactly 0, or -1
  std::vector<double> levels;     ///< of the cells

  /// The weights that count in the stage that finds the cells: all 1 (as published), or those of the levels.
  [[nodiscard]] SparseData stage(Counting counting) const { return {u, counting == Counting::values ? ones : mass}; }
  [[nodiscard]] SparseData data() const { return {u, mass}; }
};

/// What the methods of the family share: a stage finds cells of the sorted distinct values, then every level is the
/// least squares one, the weighted mean of its cell.
class SparseQuantizer : public Quantizer {
 public:
  /// Gaps between values decide, so whole units are solved value by value (up to 180 bytes a weight).
  static constexpr std::uint64_t kFewWeights = std::uint64_t{1} << 22;
  /// counting  what the stage counts: all weights, or every distinct value once, as published
  /// assign    weights get the level of their cell, or the nearest one, which is never worse
  SparseQuantizer(std::size_t levels, Counting counting, Assign assign, std::uint64_t few_weights = kFewWeights)
      : Quantizer({.rounding = assign == Assign::cells ? Rounding::cuts : Rounding::nearest,
                   .few_weights = few_weights,
                   .cost = {.row_level = 70}}),
        levels_(levels),
        counting_(counting),
        assign_(assign) {}
  [[nodiscard]] Fit fit(const Group& group) const override;
  [[nodiscard]] Codebook fit_values(std::span<const float> values, std::span<const float> importance,
                                    Workspace& scratch) const override;

 protected:
  /// Sets scratch.ends, at most levels_ cells, and zero_cell.
  virtual void find_cells(SparseScratch& scratch) const = 0;
  [[nodiscard]] std::size_t levels() const noexcept { return levels_; }
  [[nodiscard]] Counting counting() const noexcept { return counting_; }
  /// Errc::usage: `found` levels are too many; `lambda` would do, a part `relative` of the largest.
  [[noreturn]] void too_many(const std::string& asked, std::size_t found, double lambda, double relative) const;

 private:
  [[nodiscard]] Codebook codebook(SparseScratch& scratch) const;
  std::size_t levels_;
  Counting counting_;
  Assign assign_;
};

/// QuantizerEntry::make of a method of the family, for make_with.
template <class Method, class Options>
[[nodiscard]] std::unique_ptr<Quantizer> make_sparse(std::size_t levels, const Options& options) {
  return std::make_unique<Method>(levels, options);
}

/// Squared errors of the path's states after refit: [K - 1] of K levels, K up to path.size() + 1. The path belongs to
/// the points of the scratch; scatter inside bins is part of each. O(m + levels^2).
[[nodiscard]] std::vector<double> path_errors(const SparseScratch& scratch, std::span<const VanishingEdge> path);
/// Points of a group: its bins.
void load_points(const Group& group, SparseScratch& scratch);
/// Points of values in any order, with importance or none; as Quantizer::fit_values weighs them.
void load_points(std::span<const float> values, std::span<const float> importance, SparseScratch& scratch);

}  // namespace lmq
