#pragma once
#include "sls_l1.hpp"

namespace lmq {

/// Clustering with least squares centres as published: Lloyd's iteration from seeded centres, which the exact partition
/// dominates (it is kept to compare with). Holds its scratch.
class SeededLloyd {
 public:
  /// levels  at most so many cells; fewer when some become empty
  /// seed    of the centres: k-means++ (Arthur & Vassilvitskii 2007) over the distinct values
  /// rounds  of assignment and means at most; it ends when no cell changes
  /// restarts  seeds seed, seed + 1, ...: the best end of them; the first among equals. >= 1
  /// Returns ends of cells. O(restarts * (levels * m + rounds * levels * log m)).
  [[nodiscard]] const CellEnds& solve(SparseData data, std::size_t levels, std::uint64_t seed, std::size_t rounds,
                                      std::size_t restarts);
  [[nodiscard]] double loss() const noexcept { return loss_; }

 private:
  void start(SparseData data, std::size_t levels, std::uint64_t seed);
  bool assign(SparseData data);
  void means(SparseData data);

  std::vector<double> W_, S_, C_, distance_;
  std::vector<double> centres_;
  CellEnds now_, ends_;
  double loss_ = 0;
};

}  // namespace lmq
