#pragma once
#include <vector>

#include "lmq/run/task.hpp"

namespace lmq {

/// The point at which a bit more no longer saves `slope`.
[[nodiscard]] const RatePoint& point_at(const ScopeCurve& curve, double slope);

[[nodiscard]] bool has_slopes(const ScopeCurve& curve);

/// The point whose slope in common units is `slope`, with its own; between two of them bits and distortion are taken as
/// straight, over the slope or, where the scale is lost (kept < 1), over its logarithm. kept: [points], own slope over
/// common slope.
[[nodiscard]] RatePoint at_slope(const ScopeCurve& curve, const std::vector<double>& kept, double slope);

/// Means of their cells lose the share D / E of the weights' scale (D: distortion, E: that of zeros), all of a tensor's
/// errors together; D / (1 - D / E) is what is left when the scale is restored, and what tensors are compared by where
/// importance compares them. Its slope is that of D over (1 - D / E)^2, which is returned for each point.
[[nodiscard]] std::vector<double> slopes_kept(const ScopeCurve& curve, double energy);

}  // namespace lmq
