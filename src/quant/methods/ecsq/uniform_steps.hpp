#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "rate_sums.hpp"

namespace lmq {

/// Which decision cuts a uniform step has.
enum class CutRule : std::uint8_t {
  automatic = 0,  ///< the cheaper of the two
  grid = 1,       ///< in the middle between grid points, as published
  rate = 2,       ///< moved towards the rarer of two codes by the price of a bit, then shares and levels anew
  plain = 3,      ///< in the middle, and levels on the grid: errors lean nowhere (plain_steps.hpp)
};

/// A uniform quantizer: cells of one step, levels re-centred; or, where the levels of the cells cost more than they
/// gain, on the grid.
struct UniformCode {
  IntervalCode code;
  double step = 0;
  bool zero_on_cut = false;  ///< offset: zero on a threshold; else in the middle of a cell
  bool rate_cuts = false;    ///< cuts are not those of the grid
  bool on_grid = false;      ///< levels are low + k * step, k < grid_levels, and cuts in the middle
  double low = 0;
  std::size_t grid_levels = 0;
  std::vector<double> levels{};  ///< of the cells, where they are not the cells' means (CutRule::plain)
};

struct UniformSearch {
  double lambda = 0;
  CutRule cuts = CutRule::automatic;
  std::size_t most_cells = 256;
  double level_bits = 0;  ///< price of a stored level: on_grid wins where the levels gain less
};

/// Cells of one step; at most most_cells of them (the outermost are merged, the rarer side first).
[[nodiscard]] std::vector<std::uint32_t> uniform_cells(const RateSums& line, double step, bool zero_on_cut,
                                                       std::size_t most_cells);
/// Merges the outermost cells, the rarer side first, until there are at most `most`.
void merge_outer_cells(const RateSums& line, std::size_t most, std::vector<std::uint32_t>& ends);
/// The uniform code of one step and offset of least price at the search's lambda.
[[nodiscard]] UniformCode uniform_code(const RateSums& line, double step, bool zero_on_cut,
                                       const UniformSearch& search);
/// The best step and offset: a grid of steps in both offsets, then closer around the best (the price has many local
/// minima). Source: Choi, El-Khamy & Lee 2017, section 4.2; Gish & Pierce 1968.
[[nodiscard]] UniformCode best_uniform(const RateSums& line, const UniformSearch& search);

}  // namespace lmq
