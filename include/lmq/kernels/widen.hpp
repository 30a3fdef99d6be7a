#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "lmq/base/dtype.hpp"

namespace lmq {

/// Values of a float type as floats: exact for F8, F16, BF16 and F32 (NaN stays NaN), rounded to nearest even for F64.
/// bytes.size() == floats.size() * bits(type) / 8; is_float(type).
void widen(DType type, std::span<const std::byte> bytes, std::span<float> floats) noexcept;
/// Floats as values of a float type, rounded to nearest even; out of range becomes infinity (the largest value where
/// the type has none); NaN stays NaN.
void narrow_to(DType type, std::span<const float> floats, std::span<std::byte> bytes) noexcept;

/// The value of one pattern of an 8- or 16-bit float type.
[[nodiscard]] float widen_pattern(DType type, std::uint16_t pattern) noexcept;

/// Index of the first value that is NaN or infinite as a float (an F64 may be finite and still exceed floats), or
/// nothing. is_float(type). About 0.05 ns per byte.
[[nodiscard]] std::optional<std::size_t> find_nonfinite(DType type, std::span<const std::byte> bytes) noexcept;

/// The plain loops that say what the functions above mean; same bits.
namespace reference {
void widen(DType type, std::span<const std::byte> bytes, std::span<float> floats) noexcept;
void narrow_to(DType type, std::span<const float> floats, std::span<std::byte> bytes) noexcept;
[[nodiscard]] std::optional<std::size_t> find_nonfinite(DType type, std::span<const std::byte> bytes) noexcept;
}  // namespace reference

}  // namespace lmq
