#pragma once
#include "lmq/quant/quantizer.hpp"
#include "partition/partition_quantizer.hpp"

namespace lmq {

/// Levels of their own for each row or group, under the Gram matrix of the inputs where there is one: from the exact
/// partition by its diagonal, errors passed on, then codes one weight after another and levels by least squares in turn.
/// No step raises a row's loss. Without a Gram matrix the exact partition.
class FreeLevelQuantizer final : public PartitionQuantizer {
 public:
  explicit FreeLevelQuantizer(std::size_t levels);
  [[nodiscard]] UnitStats quantize_rows(const RowWindow& window, QuantizedUnit& unit) const override;
  [[nodiscard]] RowNeeds row_needs(std::uint64_t count, std::uint64_t cols) const override;
  /// What a Gram matrix adds to row_needs and to the cost.
  [[nodiscard]] LayerNeeds layer_needs(const LayerShape& shape) const override;

 private:
  std::size_t levels_;
};

}  // namespace lmq
