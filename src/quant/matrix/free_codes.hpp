#pragma once
#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "lmq/quant/cancellation.hpp"

namespace lmq {

/// Weights of a path between two decisions where errors are not passed on, or a few more.
inline constexpr std::size_t kFreeRun = 4096;

/// y in 1/256 step, y * scale, rounded; halves up.
[[nodiscard]] inline std::int32_t target_of(double scaled) noexcept {
  constexpr double kUp = 2.0 * kMaxTrellisTarget + 0.5;  // so that casts round down
  return static_cast<std::int32_t>(std::min(std::max(scaled, -1.0 * kMaxTrellisTarget), 1.0 * kMaxTrellisTarget) +
                                   kUp) -
         2 * kMaxTrellisTarget;
}

/// What targets are multiplied by: 256 / row step, 1 / column step.
[[nodiscard]] std::vector<double> row_scales(std::span<const float> row_step);
[[nodiscard]] std::vector<double> col_scales(std::span<const float> col_step);
/// The class of a weight by those of its row and column.
[[nodiscard]] inline std::uint8_t spread_class(int row, int col) noexcept {
  return static_cast<std::uint8_t>(std::clamp(row + col, 0, static_cast<int>(kSpreadClasses) - 1));
}
/// Weight of a squared step as the search takes it; row: 256 times that of the row.
[[nodiscard]] inline std::uint16_t search_weight(double row, double col) noexcept {
  return static_cast<std::uint16_t>(std::clamp(row * col + 0.5, 1.0, 511.0));
}

/// Targets of a unit whose weights do not see each other, known before any work: [rows][cols].
void free_targets(const CancellationUnit& unit, std::span<std::int32_t> targets);

/// What free_codes fills, [rows][cols] each.
struct FreeCodes {
  std::span<const std::int32_t> targets;  ///< of free_targets
  std::span<std::int32_t> codes;
  std::span<float> values;
  std::span<std::int32_t>
      multiples;  ///< of the two steps, that values are; may be the memory of targets; empty: not asked for
  double squared_steps = 0;
  std::size_t clamped = 0;
};
/// `cancel` for a unit without inputs and outputs: the same codes, values and sums. Cost: one search a weight; 11 bytes
/// for each weight of a run.
void free_codes(const CancellationUnit& unit, const TrellisRates& rates, FreeCodes& made);

}  // namespace lmq
