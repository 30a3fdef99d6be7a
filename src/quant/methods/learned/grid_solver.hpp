#pragma once
#include <cstdint>
#include <vector>

#include "matrix/feedback.hpp"
#include "matrix/grid_rows.hpp"
#include "matrix/row_blocks.hpp"
#include "training.hpp"

namespace lmq {

/// Where 0 lies on a grid.
enum class ZeroPoint : std::uint8_t {
  automatic,  ///< on, but between with 2 levels
  on,         ///< the level of code levels / 2
  between,    ///< half way between two levels, the grid symmetric (an odd number of levels: on)
  free,       ///< anywhere: the lowest level is chosen like the step
};
/// Shape of rows without their number.
[[nodiscard]] GridShape grid_shape(std::size_t cols, std::size_t group, std::size_t levels, ZeroPoint zero) noexcept;

/// How grids and codes of rows are found.
struct GridSearch {
  bool trains = false;  ///< by Adam (Training), else by passing errors on
  Training training;
  std::size_t factors = 8;  ///< steps tried by passing errors on
  std::size_t descents =
      2;  ///< rounds of descend_rows and rescale_rows after either; each ends early when it gains little
  std::size_t again = 1;  ///< times that errors are passed on anew with the steps found
  /// Steps of the diagonal alone; then, on the steps as they are stored, errors are passed on once (pass_on_once).
  bool single_pass = false;
  FeedbackUse use = {};
};

struct SolverScratch {
  BestRows best, other;
  TrainingScratch training;
  std::vector<float> room;
};

/// Steps, offsets, codes and losses of rows. Never worse than rounding to nearest on the best uniform grid of
/// search_steps (before training with a Gram matrix: of 16 about that, by the whole matrix): that is kept first. factor: of the Gram matrix, where there is one. With a diagonal H and
/// without training that grid is the answer, for codes of a given grid are best when they are nearest.
/// Cost with a Gram matrix, untrained: about factors / 2 + 2 descents (again + 1) + 3 products as measure_rows.
void solve_grids(GridRows& rows, const GridSearch& search, const FeedbackFactor* factor, SolverScratch& scratch);

/// Codes of rows on grids that stay as they are: of rounding to nearest and of errors passed on those of lower loss, row
/// by row. In: steps, offsets. Cost: one and a half products as measure_rows.
void pass_on_once(GridRows& rows, const FeedbackFactor& factor, SolverScratch& scratch);

}  // namespace lmq
