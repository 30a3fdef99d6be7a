#include "scope_statistics.hpp"

namespace lmq {

std::optional<ValueHistogram> window_values(const RowWindow& window, const QuantSpec& spec,
                                            std::span<const KeyRange> ranges) {
  const Traits traits = traits_of(spec);
  ValueHistogram histogram = ValueHistogram::of(window.view, traits.importance ? window.importance : Importance{},
                                                ranges, traits.by_importance);
  if (histogram.nonfinite() > 0) return std::nullopt;
  return histogram;
}

std::optional<SpreadHistogram> window_spreads(const RowWindow& window, const QuantSpec& spec) {
  if (first_nonfinite(window.view)) return std::nullopt;
  return layer_spreads(window, spec);
}

}  // namespace lmq
