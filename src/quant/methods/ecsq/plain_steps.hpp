#pragma once
#include <cstddef>

#include "uniform_steps.hpp"

namespace lmq {

/// The uniform code of one slope: cells of one step around 0, each weight to the nearest grid point, levels on the
/// grid. The step is that of high rates, step^2 / 12 = lambda / (2 ln 2) for each weight of importance 1, rounded to 16
/// significant bits, so that the levels of a grid are exact multiples. No level leans towards the frequent ones: the
/// squared error is up to .2 dB above that of rate-optimal cuts at equal bits, but errors of correlated inputs do not
/// add up (docs/methods/entropy-constrained.md has what that is worth to a model).
/// Where more than `most_cells` grid points are occupied, the spacing doubles from some T steps on with every octave,
/// so that no weight is off by more than 1 / T of itself: nothing is clipped. T is the largest that fits, of four an
/// octave. lambda > 0; cost O(points), where the spacing grows times its octaves.
[[nodiscard]] UniformCode plain_code(const RateSums& line, double lambda, std::size_t most_cells);

}  // namespace lmq
