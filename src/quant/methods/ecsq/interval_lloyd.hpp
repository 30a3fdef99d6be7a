#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "rate_sums.hpp"

namespace lmq {

/// What the iteration takes for the bits of a code.
enum class LengthForm : std::uint8_t {
  entropy = 0,  ///< log2 of total / count
  huffman = 1,  ///< lengths of a Huffman code
};
/// Bits of each code that so many weights (all > 0) take.
[[nodiscard]] std::vector<double> code_lengths(std::span<const double> counts, LengthForm form);
/// Bits of all codes of a partition in that form.
[[nodiscard]] double bits_in_form(const RateSums& line, std::span<const std::uint32_t> ends, LengthForm form);

/// Cells in which every point has the level of least importance * (v - level)^2 + lambda * weights * bits; levels
/// nobody takes are dropped. Where importance per weight differs between points, the best assignment with cells that
/// are intervals. levels ascending, bits as many.
[[nodiscard]] std::vector<std::uint32_t> assign_by_rate(const RateSums& line, std::span<const double> levels,
                                                        std::span<const double> bits, double lambda);

/// The same as if importance per weight were equal everywhere: O(levels log points), and no promise where it is not.
[[nodiscard]] std::vector<std::uint32_t> assign_by_envelope(const RateSums& line, std::span<const double> levels,
                                                            std::span<const double> bits, double lambda);

/// The paper's iteration from a start: assign, drop empty cells, means and shares anew, until nothing changes. The
/// price D + lambda * bits (in that form) never rises. Source: Choi, El-Khamy & Lee 2017, section 4.3 (iterative ECSQ).
[[nodiscard]] IntervalCode iterate_intervals(const RateSums& line, IntervalCode start, double lambda, LengthForm form);

}  // namespace lmq
