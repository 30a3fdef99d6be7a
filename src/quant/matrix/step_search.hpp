#pragma once
#include "grid_rows.hpp"

namespace lmq {

/// Steps (and offsets) of every grid under the diagonal of H alone: of `factors` shares .15 .. 1.05 of the step that
/// spans the group the one of least error with the nearest codes, as many again about that, then steps in closed form
/// for the codes and codes for the steps until nothing is gained. Values that all lie on one grid of so many levels get
/// that grid. A group of one value gets step 0. Out: codes, too. Cost: about 4.5 ns a weight, look and factor.
void search_steps(GridRows& rows, std::size_t factors);
inline constexpr std::size_t kStepFactors = 80;

}  // namespace lmq
