#pragma once
#include <cstddef>
#include <span>

#include "lmq/base/dtype.hpp"

namespace lmq {

/// Values of a float type as floats: exact for F8, F16, BF16 and F32 (NaN stays NaN), rounded to nearest even for F64.
/// bytes.size() == floats.size() * bits(type) / 8; is_float(type).
void widen(DType type, std::span<const std::byte> bytes, std::span<float> floats) noexcept;
/// Floats as values of a float type, rounded to nearest even; out of range becomes infinity (the largest value where the
/// type has none); NaN stays NaN.
void narrow_to(DType type, std::span<const float> floats, std::span<std::byte> bytes) noexcept;

}  // namespace lmq
