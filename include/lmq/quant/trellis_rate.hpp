#pragma once
#include <span>
#include <vector>

#include "lmq/quant/quantizer.hpp"
#include "lmq/quant/spread_histogram.hpp"

namespace lmq {

/// What the trellis makes of a weight, on the average.
struct TrellisRate {
  double bits = 0;
  double error = 0;  ///< squared, in squared steps
};
/// square: mean square of what is coded, in squared steps. From tables measured on normal weights (lmq_trellis_fit).
[[nodiscard]] TrellisRate trellis_rate(unsigned states, double square) noexcept;

/// The step c at which a bit more would save `slope` of c^2 * squared steps, at rates where the error of a weight does
/// not depend on its spread: slope = 2 ln 2 * error * c^2.
[[nodiscard]] double step_at_slope(unsigned states, double slope) noexcept;
[[nodiscard]] double slope_of_step(unsigned states, double step) noexcept;

/// Bits and distortion of all weights of a histogram for each slope (lambdas), in that order.
[[nodiscard]] std::vector<RatePoint> trellis_curve(const SpreadHistogram& histogram, unsigned states,
                                                   std::span<const double> lambdas);
/// The step at which the weights of a histogram take so many bits each, on the average; to 2^-20 of it.
[[nodiscard]] double step_for_bits(const SpreadHistogram& histogram, unsigned states, double bits);

}  // namespace lmq
