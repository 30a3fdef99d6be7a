#include "lmq/plan/costs.hpp"

#include <algorithm>
#include <cmath>

#include "lmq/quant/quantizer.hpp"

namespace lmq {

bool has_grid_codebook(std::uint16_t method) noexcept {
  const QuantizerEntry* entry = find_quantizer(method);
  return entry != nullptr && entry->name == "uniform";
}

namespace {

bool is_kmeans(std::uint16_t method) noexcept {
  const QuantizerEntry* entry = find_quantizer(method);
  return entry != nullptr && entry->name == "kmeans";
}

/// Nanoseconds a weight of `spec` takes to fit and assign with codebooks per row or group of n weights.
double rows_nanoseconds(DType value_type, const QuantSpec& spec, std::uint64_t cols) noexcept {
  if (has_grid_codebook(spec.method)) return kCosts.rows_uniform;
  const std::uint64_t n = spec.granularity == Granularity::row ? cols : std::min(cols, spec.group);
  const double levels =
      static_cast<double>(std::min<std::uint64_t>(spec.options.levels, std::max<std::uint64_t>(n, 2)));
  const double narrow = bits(value_type) <= 16 ? kCosts.rows_narrow : 1.0;
  if (is_kmeans(spec.method) && static_cast<double>(n) <= 32 * levels)
    return n < 512 ? kCosts.rows_few : 2.5 * kCosts.rows_few * narrow;
  const double cost = kCosts.rows_kmeans * std::log2(levels);
  if (n < 512) return cost;
  const double easier = std::max(cost - kCosts.rows_easier, kCosts.rows_kmeans / 2);
  return easier * narrow;
}

}  // namespace

double quantize_seconds(DType value_type, const QuantSpec& spec, std::uint64_t count, std::uint64_t cols,
                        bool weighted) {
  double nanoseconds = weighted ? kCosts.weigh : 0.0;  // per weight
  if (spec.granularity == Granularity::model || spec.granularity == Granularity::tensor) {
    nanoseconds += kCosts.quantize_shared + (spec.options.levels > 16 ? kCosts.many_levels : 0.0);
    if (bits(value_type) <= 16)
      nanoseconds += kCosts.tally_narrow;
    else
      nanoseconds +=
          kCosts.tally_wide + (has_grid_codebook(spec.method)
                                   ? 0.0
                                   : kCosts.look_closer * std::log2(static_cast<double>(spec.options.levels)));
  } else {
    nanoseconds += kCosts.encode + rows_nanoseconds(value_type, spec, cols);
  }
  return nanoseconds * 1e-9 * static_cast<double>(count);
}

double solve_seconds(DType value_type, const QuantSpec& spec, std::uint64_t count, bool weighted) {
  if (has_grid_codebook(spec.method)) return 0;
  const auto expected = static_cast<double>(expected_bins(value_type, spec, weighted));
  const double bins = std::min(static_cast<double>(count), expected);
  if (bits(value_type) <= 16) return kCosts.solve_bin * 1e-9 * bins;
  return 1e-9 *
         (kCosts.carry_bin * bins + kCosts.solve_wide * static_cast<double>(spec.options.levels) * (bins / expected));
}

double copy_seconds(std::uint64_t bytes) noexcept { return kCosts.copy * 1e-9 * static_cast<double>(bytes); }

}  // namespace lmq
