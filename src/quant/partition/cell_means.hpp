#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace lmq {

/// Least squares levels of cells of points: their weighted means, and 0 for the cell `zero_cell` (-1: none).
/// values   [m] ascending
/// weights  [m] > 0
/// ends     [cells + 1] 0 = ends[0] < ... < ends[cells] = m
/// Cost O(m).
void cell_means(std::span<const double> values, std::span<const double> weights, std::span<const std::uint32_t> ends,
                std::ptrdiff_t zero_cell, std::vector<double>& levels);

}  // namespace lmq
