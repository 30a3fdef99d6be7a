#pragma once
#include "entropy_fit.hpp"
#include "lmq/quant/quantizer.hpp"

namespace lmq {

/// Levels and cuts, levels and prices, or a grid.
[[nodiscard]] Codebook entropy_codebook(const RateSums& line, const EntropyCode& code);

}  // namespace lmq
