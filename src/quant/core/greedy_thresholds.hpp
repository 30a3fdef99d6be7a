#pragma once
#include <span>
#include <vector>

namespace lmq {

/// Magnitudes at which a greedy sign code of bases v_1 .. v_k >= 0 changes, ascending and distinct: where the residual
/// after a base is 0. Cost O(2^k).
[[nodiscard]] std::vector<double> greedy_thresholds(std::span<const double> bases);

}  // namespace lmq
