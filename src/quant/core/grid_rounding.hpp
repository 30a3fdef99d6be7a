#pragma once
#include <cstddef>
#include <span>

#include "lmq/base/quantized_unit.hpp"

namespace lmq {

/// round_levels for grids, whose last level low + (levels - 1) * step must stay a float: where the rounded step is too
/// large for that it becomes the next smaller ones that `type` can store.
/// book    [2 * n]: low and step (>= 0) of each grid, finite
/// Errors  none: a step of 0 is always small enough
void round_grids(std::span<float> book, std::size_t levels, LevelType type);

/// Tables of unit.levels levels become as wide as the widest of them, `width` <= unit.levels. Not rounded.
void narrow_tables(QuantizedUnit& unit, std::size_t width);

}  // namespace lmq
