#include "lmq/plan/costs.hpp"

#include "lmq/quant/quantizer.hpp"

namespace lmq {

bool has_grid_codebook(std::uint16_t method) noexcept {
  const QuantizerEntry* entry = find_quantizer(method);
  return entry != nullptr && entry->name == "uniform";
}

double quantize_seconds(DType value_type, const QuantSpec& spec, std::uint64_t count) {
  double nanoseconds = 0;  // per weight
  if (spec.granularity == Granularity::model || spec.granularity == Granularity::tensor)
    nanoseconds = kCosts.quantize_shared + (bits(value_type) <= 16 ? kCosts.tally_narrow : kCosts.tally_wide);
  else
    nanoseconds = kCosts.encode + (has_grid_codebook(spec.method) ? kCosts.rows_uniform : kCosts.rows_kmeans);
  return nanoseconds * 1e-9 * static_cast<double>(count);
}

double copy_seconds(std::uint64_t bytes) noexcept { return kCosts.copy * 1e-9 * static_cast<double>(bytes); }

}  // namespace lmq
