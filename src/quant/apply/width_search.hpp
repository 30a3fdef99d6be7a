#pragma once
#include "lmq/quant/width_allocation.hpp"

namespace lmq {

using WidthTables = std::span<const WidthTable>;

/// Bytes and loss of points, summed in the order of the tables.
[[nodiscard]] WidthChoice choice_of(WidthTables tables, std::vector<std::size_t> points);
/// Spends what is left of the room: the change of one scope that gains most loss per byte and fits, again and again.
void fill_room(WidthTables tables, double room, WidthChoice& choice);

/// Points of a table on the lower convex hull of bytes and loss, from the fewest bytes to the least loss.
[[nodiscard]] std::vector<std::size_t> width_hull(const WidthTable& table);

/// The choice by one slope, filled up; stopped_at: the slope of the first step that did not fit, 0: all did.
struct SlopeChoice {
  WidthChoice choice;
  double stopped_at = 0;
};
[[nodiscard]] std::optional<SlopeChoice> choose_by_slope(WidthTables tables, double room);
/// From there to the least loss.
[[nodiscard]] WidthChoice choose_exactly(WidthTables tables, double room, const SlopeChoice& known);
[[nodiscard]] WidthChoice choose_by_gates(WidthTables tables, double room);

}  // namespace lmq
