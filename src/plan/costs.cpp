#include "lmq/plan/costs.hpp"

#include <algorithm>
#include <cmath>

#include "lmq/quant/unit.hpp"

namespace lmq {

namespace {

/// Nanoseconds a weight of `spec` takes to fit and assign with codebooks of so many levels per row or group of n weights.
double rows_nanoseconds(DType value_type, const QuantSpec& spec, std::uint64_t cols, std::size_t most_levels) {
  const MethodCost cost = traits_of(spec).cost;
  if (cost.row_weight > 0) return cost.row_weight;
  const std::uint64_t n = spec.granularity == Granularity::row ? cols : std::min(cols, spec.group);
  const double levels = static_cast<double>(std::min<std::uint64_t>(most_levels, std::max<std::uint64_t>(n, 2)));
  const double narrow = bits(value_type) <= 16 ? kCosts.rows_narrow : 1.0;
  if (cost.row_few > 0 && static_cast<double>(n) <= 32 * levels)
    return n < 512 ? cost.row_few : 2.5 * cost.row_few * narrow;
  const double all = cost.row_level * std::log2(levels) + cost.row_each * levels;
  if (n < 512) return all;
  const double easier = std::max(all - kCosts.rows_easier, cost.row_level / 2);
  return easier * narrow;
}

/// The same of all options that are tried for what bits would buy: slopes, or numbers of levels.
double tried_nanoseconds(DType value_type, const QuantSpec& spec, std::uint64_t cols) {
  constexpr double kSlopes = 11;
  if (find_quantizer(spec.method)->at_slope != nullptr)
    return kSlopes * (kCosts.encode + rows_nanoseconds(value_type, spec, cols, spec.options.levels));
  double sum = 0;
  for (std::size_t levels = 2; levels <= 256; levels *= 2)
    for (const std::size_t one : {levels, levels / 2 * 3})
      sum += kCosts.encode + rows_nanoseconds(value_type, spec, cols, one);
  return sum;
}

}  // namespace

double quantize_seconds(DType value_type, const QuantSpec& spec, std::uint64_t count, std::uint64_t cols,
                        bool weighted) {
  double nanoseconds = weighted ? kCosts.weigh : 0.0;  // per weight
  if (spec.granularity == Granularity::model || spec.granularity == Granularity::tensor) {
    nanoseconds += kCosts.quantize_shared + (spec.options.levels > 16 ? kCosts.many_levels : 0.0);
    if (bits(value_type) <= 16)
      nanoseconds += kCosts.histogram_narrow;
    else
      nanoseconds +=
          kCosts.histogram_wide + (traits_of(spec).detail == Detail::extremes
                                       ? 0.0
                                       : kCosts.refine * std::log2(static_cast<double>(spec.options.levels)));
  } else {
    nanoseconds += kCosts.encode + rows_nanoseconds(value_type, spec, cols, spec.options.levels);
  }
  return nanoseconds * 1e-9 * static_cast<double>(count);
}

double layer_seconds(const LayerNeeds& needs, std::uint64_t count, bool factor, bool weighted) noexcept {
  const double nanoseconds = kCosts.trellis + (weighted ? kCosts.weigh : 0.0);
  return needs.seconds + (factor ? needs.factor_seconds : 0.0) + nanoseconds * 1e-9 * static_cast<double>(count);
}

double solve_seconds(DType value_type, const QuantSpec& spec, std::uint64_t count, bool weighted) {
  const Traits traits = traits_of(spec);
  if (traits.detail == Detail::extremes) return 0;
  const auto expected = static_cast<double>(expected_bins(value_type, spec, weighted));
  const double bins = std::min(static_cast<double>(count), expected);
  if (bits(value_type) <= 16) return traits.cost.solve_bin * 1e-9 * bins;
  return 1e-9 * (kCosts.carry_bin * bins +
                 traits.cost.solve_level * static_cast<double>(spec.options.levels) * (bins / expected));
}

std::uint64_t tried_weights(std::uint64_t count) noexcept {
  constexpr std::uint64_t kPart = 8, kLeast = 2048, kMost = 16384;
  return std::clamp(count / kPart, kLeast, kMost);
}

double curve_seconds(DType value_type, const QuantSpec& spec, std::uint64_t count, std::uint64_t cols, bool weighted) {
  if (!spec.budgeted) return 0;
  if (spec.granularity >= Granularity::row)
    return tried_nanoseconds(value_type, spec, cols) * 1e-9 *
           static_cast<double>(std::min(count, tried_weights(count)));
  const std::uint64_t most = count < kFewWeights ? kFewBins : expected_bins(value_type, spec, weighted);
  return traits_of(spec).cost.curve_bin * 1e-9 * static_cast<double>(std::min(count, most));
}

double copy_seconds(std::uint64_t bytes) noexcept { return kCosts.copy * 1e-9 * static_cast<double>(bytes); }

}  // namespace lmq
