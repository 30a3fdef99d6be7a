#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lmq/kernels/trellis.hpp"

namespace lmq {

/// Rows of a layer that share a path, with what passing their errors on needs. With F = A A^T, S = B B^T of the outputs
/// and the inputs (lmq/quant/curvature_factor.hpp), tr(F E S E^T) = sum_ij (A_ii B_jj)^2 (y_ij - q_ij)^2 where
///   y_ij = w_ij + sum of A'_i'i e_i'j' B'_j'j over all i' >= i, j' >= j but (i, j) itself,
/// A', B' with ones on the diagonal: a weight may be coded once those below and right of it are.
struct CancellationUnit {
  std::size_t rows = 0, cols = 0;
  std::span<const float> weights;                       ///< [rows][cols], row-major
  std::span<const float> outputs;                       ///< A', [rows][rows]; empty: rows do not see each other
  std::span<const float> inputs;                        ///< B', [cols][cols]; empty: columns do not
  std::span<const float> panels;                        ///< B' once more (in_panels); empty: made by cancel
  std::span<const float> row_step, col_step;            ///< > 0; the step of a weight is the product
  std::span<const std::int8_t> row_spread, col_spread;  ///< their sum, kept in range, is the spread class
  std::span<const float> row_weight, col_weight;        ///< of a squared step, about 1; both empty: 1
};

struct CancelledCodes {
  std::vector<std::int32_t> codes;    ///< [rows][cols]
  std::vector<std::int32_t> targets;  ///< [rows][cols], y / step in 1/256
  std::vector<float> values;          ///< [rows][cols], q as decoders have it
  double squared_steps = 0;           ///< sum of weight * ((y - q) / step)^2
  std::size_t clamped = 0;            ///< targets beyond kMaxTrellisTarget, which count as that
};

/// B' in panels of 32 columns, [panels][cols][32], filled up with zeros: what is multiplied lies together. For several
/// units with the same inputs.
[[nodiscard]] std::vector<float> in_panels(std::span<const float> inputs, std::size_t cols);

/// Codes of a unit along the anti-diagonals, last to first, as the record of a trellis has them (docs/format.md,
/// section 3). With errors to pass on the path is decided at the end of each anti-diagonal, else every 4096 weights.
/// Cost: cols / 2 + rows / 2 fused multiply-adds and one search a weight, 48 bytes a weight.
/// Same bits for any instruction set, and as the reference: all sums are chains of fused multiply-adds from the last
/// column (row) on.
[[nodiscard]] CancelledCodes cancel(const CancellationUnit& unit, const TrellisRates& rates);
/// The two sums of each weight in plain loops: the meaning, and the twin for tests.
[[nodiscard]] CancelledCodes cancel_reference(const CancellationUnit& unit, const TrellisRates& rates);

}  // namespace lmq
