#pragma once
#include <optional>
#include <span>

#include "lmq/quant/spread_histogram.hpp"
#include "lmq/quant/unit.hpp"
#include "lmq/quant/value_histogram.hpp"

namespace lmq {

/// What a window adds to the statistics of its scope: its values, with importance where the method looks at it. Nothing
/// where a weight is NaN or infinite. ranges: as ValueHistogram::of.
[[nodiscard]] std::optional<ValueHistogram> window_values(const RowWindow& window, const QuantSpec& spec,
                                                          std::span<const KeyRange> ranges = {});
/// The same of methods that see layers: its spreads.
[[nodiscard]] std::optional<SpreadHistogram> window_spreads(const RowWindow& window, const QuantSpec& spec);

}  // namespace lmq
