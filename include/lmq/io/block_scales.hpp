#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "lmq/base/tensor.hpp"

namespace lmq {

/// True for the 8-bit float types with a mantissa.
[[nodiscard]] bool is_f8(DType type) noexcept;

/// True when a tensor's block size goes with its scale: an 8-bit float whose scale is F32, BF16, F16 or F8_E8M0 and has
/// one value in all, or one for each block of each matrix.
[[nodiscard]] bool scale_fits(const TensorInfo& tensor, const TensorInfo& scale) noexcept;

/// All values of a tensor that scales others; its types are those of scale_fits.
[[nodiscard]] std::vector<float> scale_values(const TensorInfo& scale, std::span<const std::byte> bytes);

/// Values of the elements [begin, begin + bytes.size()) of an 8-bit float tensor with its scales applied, each w *
/// scale rounded to float. `scales` are those from index `first_scale` on. floats.size() == bytes.size(). scale_fits.
void apply_scales(const TensorInfo& tensor, const TensorInfo& scale, std::uint64_t begin,
                  std::span<const std::byte> bytes, std::span<const float> scales, std::uint64_t first_scale,
                  std::span<float> floats) noexcept;

}  // namespace lmq
