#pragma once
#include <optional>

#include "entropy_fit.hpp"
#include "lmq/quant/quantizer.hpp"

namespace lmq {

/// The entropy-constrained way a method goes, if it is one.
[[nodiscard]] std::optional<EntropyWay> entropy_way(std::uint16_t method) noexcept;
/// What a method's options ask for.
[[nodiscard]] EntropyWish entropy_wish(EntropyWay way, const QuantizerOptions& options);
/// The same options with a slope of their own instead of what they say of the rate.
[[nodiscard]] QuantizerOptions options_at(QuantizerOptions options, double lambda);
/// Levels and cuts, levels and prices, or a grid.
[[nodiscard]] Codebook entropy_codebook(const RateLine& line, const EntropyCode& code);

}  // namespace lmq
