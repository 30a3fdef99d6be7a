#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "lmq/base/tensor.hpp"
#include "lmq/io/block_scales.hpp"
#include "lmq/io/reader.hpp"
#include "model_config.hpp"

namespace lmq {

/// Pairs 8-bit float tensors with the tensors that scale them: T with T_scale_inv or T_scale, X.weight with X.scale or
/// X.scale_weight too. Sets scale, scales and the block's size in `catalogue`. `owners`: see find_companions. Block
/// scales have the shape of the weight with the last two dimensions divided by the block of `config`; a scale may also
/// hold one value for each row, column, matrix of a stack, group of columns of each row, or one in all. Types: F32,
/// BF16, F16, F8_E8M0. Where that cannot be done, a note says why: no scale although the
/// configuration does not name it among the exceptions (unscaled), two scales or one of another type (unsupported), a
/// shape that fits nothing (malformed). Nothing is refused here: what is kept needs no scale.
void pair_block_scales(Catalogue& catalogue, const std::vector<std::int64_t>& owners, const ModelConfig& config);

/// Indices of the scales that the elements [begin, begin + count), count > 0, need: a contiguous range.
struct ScaleRange {
  std::uint64_t begin = 0, count = 0;
};
[[nodiscard]] ScaleRange scale_range(const TensorInfo& tensor, const TensorInfo& scale, std::uint64_t begin,
                                     std::uint64_t count) noexcept;

/// Element (of the tensor) of the first value that is not zero although its scale is, or nothing: such a block is
/// damaged, while a block of zeros has no scale. Arguments as apply_scales.
[[nodiscard]] std::optional<std::uint64_t> first_under_zero(const TensorInfo& tensor, const TensorInfo& scale,
                                                            std::uint64_t begin, std::span<const std::byte> bytes,
                                                            std::span<const float> scales,
                                                            std::uint64_t first_scale) noexcept;

}  // namespace lmq
