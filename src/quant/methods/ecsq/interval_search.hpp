#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "rate_sums.hpp"

namespace lmq {

inline constexpr std::size_t kMaxCells = 256;
/// Points up to which a search looks at all pairs of edges.
inline constexpr std::size_t kMaxExactPoints = std::size_t{1} << 14;

/// Engine E4: the interval code that minimises distortion + lambda * bits + cell_penalty * cells over all partitions of the
/// line. Keeps its columns between calls: one for each thread.
class IntervalSearch {
 public:
  /// The global optimum (of all edges); m^2 / 2 prices at most, those of starts that are dead for good left out. Above
  /// kMaxExactPoints points as `quick`.
  [[nodiscard]] IntervalCode exact(const RateSums& line, double lambda, std::size_t most_cells = kMaxCells);
  /// The same over edges no closer than a part of a cell's width, then over all edges near those found: some 100 times
  /// quicker, within 1e-4 of the optimum as a rule (tests/quant/ecsq_test.cpp).
  [[nodiscard]] IntervalCode quick(const RateSums& line, double lambda, std::size_t most_cells = kMaxCells);
  /// `quick` where it costs less than `price` (distortion + lambda * bits), else nothing. Known after one search where
  /// even cells without number cost more.
  [[nodiscard]] std::optional<IntervalCode> cheaper(const RateSums& line, double lambda, std::size_t most_cells,
                                                    double price);

 private:
  struct Columns {
    std::vector<std::uint32_t> edge;  // ascending, from 0 to the number of points
    std::vector<double> n, a, b, c;
  };

  std::vector<std::uint32_t> all_edges(const RateSums& line, double lambda, double cell_penalty);
  std::vector<std::uint32_t> few_edges(const RateSums& line, double lambda, double cell_penalty);
  [[nodiscard]] double penalty_for(const RateSums& line, double lambda, std::size_t most_cells);
  std::vector<std::uint32_t> cheapest_path(const CellColumns& columns, std::size_t edges, std::size_t zero,
                                           double lambda, double cell_penalty, double inverse_count);
  std::vector<std::uint32_t> over(const RateSums& line, const std::vector<std::uint32_t>& edge, double lambda,
                                  double cell_penalty);

  Columns chosen_;
  std::vector<double> f_, rest_;  // cost of the best path to an edge; X log2(X / N) of the X weights behind it
  std::vector<std::uint32_t> back_;
};

}  // namespace lmq
