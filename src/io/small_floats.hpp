#pragma once
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "lmq/base/dtype.hpp"

namespace lmq {

/// Value of a half (IEEE binary16), exact; a NaN keeps its payload.
[[nodiscard]] inline float half_value(std::uint16_t bits) noexcept {
  // Exponent and mantissa moved to a float's place are the value times 2^-112, exactly; subnormal halves as well.
  const float magnitude = (bits & 0x7C00) == 0x7C00 ? std::bit_cast<float>(0x7F800000U | (bits & 0x3FFU) << 13)
                                                    : std::bit_cast<float>((bits & 0x7FFFU) << 13) * 0x1p112F;
  return bits & 0x8000 ? -magnitude : magnitude;
}

/// The half nearest to a finite value, ties to even; the largest one for what is beyond.
[[nodiscard]] std::uint16_t to_half(float value) noexcept;
/// The BF16 nearest to a finite value, ties to even.
[[nodiscard]] std::uint16_t to_bf16(float value) noexcept;

/// Values of an 8-bit float type by byte (F8_E4M3, F8_E5M2 and their FNUZ kin), exact.
[[nodiscard]] const std::array<float, 256>& f8_values(DType type) noexcept;

/// Values of F32, F16, BF16, F64, F8_E8M0 or an 8-bit float type as floats: for scales and importances, which are few
/// (the hot loops of the weights live in the kernels). Exact but for F64, which is rounded to nearest. bytes.size() ==
/// floats.size() * bits(type) / 8.
void to_floats(DType type, std::span<const std::byte> bytes, std::span<float> floats) noexcept;

}  // namespace lmq
