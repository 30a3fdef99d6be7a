#pragma once
#include <cstdint>
#include <span>
#include <string>

#include "lmq/base/tensor.hpp"
#include "lmq/io/reader.hpp"

namespace lmq {

/// Pairs 8-bit float tensors with the tensors that scale them: T with T_scale_inv, else T_scale (so X.weight with
/// X.weight_scale_inv). Sets scale, scales and the block's size in `catalogue`. Block scales have the shape of the
/// weight with the last two dimensions divided by the block of config.json (quantization_config: weight_block_size),
/// 128 x 128 without one; a scale may also hold one value per row, per matrix of a stack, or one in all. config.json is
/// looked at only when there are 8-bit floats. Errc::malformed: shape that fits nothing, both scales, or an F8
/// `X.weight` without a scale although config.json has a quantization_config whose list of exceptions does not name X.
/// Errc::unsupported: scale that is no F32, BF16 or F16.
void pair_block_scales(Catalogue& catalogue);

/// True when a tensor's block size goes with its scale: an 8-bit float whose scale is F32, BF16 or F16 and has one
/// value in all, or one for each block of each matrix.
[[nodiscard]] bool scale_fits(const TensorInfo& tensor, const TensorInfo& scale) noexcept;

/// Values of the elements [begin, begin + bytes.size()) of an 8-bit float tensor with its scales applied, each w *
/// scale rounded to float. `scales` are those from index `first_scale` on (see scale_range). floats.size() ==
/// bytes.size().
void apply_scales(const TensorInfo& tensor, const TensorInfo& scale, std::uint64_t begin,
                  std::span<const std::byte> bytes, std::span<const float> scales, std::uint64_t first_scale,
                  std::span<float> floats) noexcept;

/// Indices of the scales that the elements [begin, begin + count), count > 0, need: a contiguous range.
struct ScaleRange {
  std::uint64_t begin = 0, count = 0;
};
[[nodiscard]] ScaleRange scale_range(const TensorInfo& tensor, const TensorInfo& scale, std::uint64_t begin,
                                     std::uint64_t count) noexcept;

}  // namespace lmq
