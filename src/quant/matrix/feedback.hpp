#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "grid_rows.hpp"

namespace lmq {

/// Which columns are decided first.
enum class ColumnOrder : std::uint8_t {
  curvature,  ///< those of largest diagonal
  natural,    ///< the first ones
};

/// A damped Gram matrix taken apart for passing errors on: columns in `order`, H = B B^T there, B = unit * pivot, unit
/// lower triangular.
struct FeedbackFactor {
  std::vector<std::uint32_t> order;  ///< [cols]; ends are decided first
  std::vector<float> unit;           ///< [cols][cols]
  std::vector<double> pivot;         ///< [cols]
  double damping = 0;                ///< what was added to the diagonal
};
/// What is nothing beside 1: below it numbers of a factor or Gram matrix (beside its mean diagonal) are taken as 0.
inline constexpr double kNothing = 0x1p-100;
/// share: damping as a share of the mean diagonal. Errors: those of factor_curvature. Cost: cols^3 / 3 fused
/// multiply-adds, 20 cols^2 bytes.
[[nodiscard]] FeedbackFactor feedback_factor(std::span<const float> gram, std::size_t cols, double share,
                                             ColumnOrder order = ColumnOrder::curvature);

/// Codes of rows with Gram matrices, one weight after another from the last of the order: each gets the level nearest to
/// its value and what the errors so far ask of it, the least of the loss if later weights could take any value. In:
/// steps, offsets. Out: codes and losses (exact, as sums of pivot^2 * rounding^2). room: scratch. Cost: half a product
/// as measure_rows. Source: Frantar et al. 2023, GPTQ (one weight at a time); losses by Chee et al. 2023, QuIP, theorem 1.
/// Same bits as the reference, for any block of rows and any instruction set: targets are chains of fused
/// multiply-adds in the order of the decisions.
void feedback_rows(GridRows& rows, const FeedbackFactor& factor, std::vector<float>& room);
/// The same in plain loops: the meaning, and the twin for tests.
void feedback_rows_reference(GridRows& rows, const FeedbackFactor& factor);

}  // namespace lmq
