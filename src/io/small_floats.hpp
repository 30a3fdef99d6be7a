#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "lmq/base/dtype.hpp"

namespace lmq {

/// Values of an 8-bit float type by byte (F8_E4M3, F8_E5M2 and their FNUZ kin), exact.
[[nodiscard]] const std::array<float, 256>& f8_values(DType type) noexcept;

/// Values of F32, F16, BF16, F64, F8_E8M0 or an 8-bit float type as floats: for scales and importances, which are few
/// (the hot loops of the weights live in the kernels). Exact but for F64, which is rounded to nearest. bytes.size() ==
/// floats.size() * bits(type) / 8.
void to_floats(DType type, std::span<const std::byte> bytes, std::span<float> floats) noexcept;

}  // namespace lmq
