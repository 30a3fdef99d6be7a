#pragma once
#include <cstddef>

#include "core/zero_rule.hpp"
#include "lmq/quant/quantizer.hpp"

namespace lmq {

/// The exact partition as a codebook: least squared error, weighted by importance (kmeans, and sls-l0 where it is the
/// same problem).
class PartitionQuantizer : public Quantizer {
 public:
  /// levels 1..256; zero: what becomes of weights that are exactly 0.
  PartitionQuantizer(std::size_t levels, ZeroRule zero);
  [[nodiscard]] Fit fit(const Group& group) const override;
  [[nodiscard]] Codebook approximate_fit(const Group& group) const override;
  [[nodiscard]] Codebook fit_values(std::span<const float> values, std::span<const float> importance,
                                    Workspace& workspace) const override;

 protected:
  PartitionQuantizer(std::size_t levels, ZeroRule zero, const Traits& traits);

 private:
  std::size_t levels_;
  ZeroRule zero_;
};

/// Codebooks [K] of the best partitions into K cells, in one pass over all K. For QuantizerEntry::all.
[[nodiscard]] std::vector<Codebook> every_partition(const Group& group, std::size_t most_levels);
/// The same, with a level of exactly 0 where zeros stand out (ZeroRule::automatic).
[[nodiscard]] std::vector<Codebook> every_partition_with_zero(const Group& group, std::size_t most_levels);

}  // namespace lmq
