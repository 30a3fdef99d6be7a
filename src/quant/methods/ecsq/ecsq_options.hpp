#pragma once
#include "entropy_fit.hpp"
#include "lmq/quant/quantizer.hpp"

namespace lmq {

/// What a method's options ask for.
[[nodiscard]] EcsqOptions ecsq_options(EcsqAlgorithm way, const QuantizerOptions& options);
/// The same options with a slope of their own instead of what they say of the rate.
[[nodiscard]] QuantizerOptions options_at(QuantizerOptions options, double lambda);
/// Levels and cuts, levels and prices, or a grid.
[[nodiscard]] Codebook entropy_codebook(const RateLine& line, const EntropyCode& code);

}  // namespace lmq
