#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "lmq/kernels/keys.hpp"
#include "lmq/kernels/widen.hpp"
#include "small_float.hpp"

namespace lmq {
namespace {
float decode(const SmallFloat& type, std::uint16_t pattern) noexcept {
  const auto magnitude = static_cast<std::uint16_t>(pattern & (type.sign - 1));
  const bool negative = (pattern & type.sign) != 0;
  const std::uint32_t sign_bit = negative ? 0x80000000u : 0u;
  if (type.unsigned_zero ? pattern == type.sign : magnitude > type.infinity) {  // NaN: payload kept, quiet
    const auto payload = static_cast<std::uint32_t>(magnitude) << (23 - type.mantissa) & 0x7FFFFFu;
    return std::bit_cast<float>(sign_bit | 0x7FC00000u | payload);
  }
  if (magnitude > type.largest) return std::bit_cast<float>(sign_bit | 0x7F800000u);
  const int field = magnitude >> type.mantissa, fraction = magnitude & ((1 << type.mantissa) - 1);
  const int whole = field > 0 ? fraction | 1 << type.mantissa : fraction;
  const float value = std::ldexp(static_cast<float>(whole), (field > 0 ? field : 1) - type.bias - type.mantissa);
  return negative ? -value : value;
}

std::uint16_t encode(const SmallFloat& type, float value) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint16_t sign = bits >> 31 ? type.sign : 0;
  if (std::isnan(value)) {  // payload kept as far as it fits
    const auto payload =
        type.sign == 0x8000 ? static_cast<std::uint16_t>((bits & 0x7FFFFFu) >> (23 - type.mantissa)) : 0;
    return static_cast<std::uint16_t>(sign | type.nan | payload);
  }
  std::uint16_t magnitude = type.infinity;
  if (!std::isinf(value) && value != 0) {
    const int lowest = 1 - type.bias;  // exponent of subnormals
    const int exponent = std::max(std::ilogb(value), lowest);
    // Exact in double: a float times a power of two. nearbyint rounds to nearest even.
    const double steps = std::nearbyint(std::ldexp(std::fabs(double{value}), type.mantissa - exponent));
    const auto wide = (static_cast<long>(exponent - lowest) << type.mantissa) + static_cast<long>(steps);
    magnitude = wide > type.largest ? type.infinity : static_cast<std::uint16_t>(wide);
  } else if (value == 0) {
    magnitude = 0;
  }
  if (magnitude == 0 && type.unsigned_zero) return 0;
  return static_cast<std::uint16_t>(sign | magnitude);
}

template <class T>
T load(std::span<const std::byte> bytes, std::size_t index) noexcept {
  T value;
  std::memcpy(&value, bytes.data() + index * sizeof(T), sizeof(T));
  return value;
}
template <class T>
void store(std::span<std::byte> bytes, std::size_t index, T value) noexcept {
  std::memcpy(bytes.data() + index * sizeof(T), &value, sizeof(T));
}

float widen_one(DType type, std::span<const std::byte> bytes, std::size_t index) noexcept {
  if (type == DType::f32) return load<float>(bytes, index);
  if (type == DType::f64) return static_cast<float>(load<double>(bytes, index));
  const SmallFloat& small = *small_float(type);
  return decode(small, small.sign == 0x80 ? load<std::uint8_t>(bytes, index) : load<std::uint16_t>(bytes, index));
}
}  // namespace

float widen_pattern(DType type, std::uint16_t pattern) noexcept { return decode(*small_float(type), pattern); }

namespace reference {

void widen(DType type, std::span<const std::byte> bytes, std::span<float> floats) noexcept {
  if (type == DType::f32) {
    if (!floats.empty()) std::memcpy(floats.data(), bytes.data(), floats.size_bytes());
    return;
  }
  for (std::size_t i = 0; i < floats.size(); ++i) floats[i] = widen_one(type, bytes, i);
}

void narrow_to(DType type, std::span<const float> floats, std::span<std::byte> bytes) noexcept {
  if (type == DType::f32) {
    if (!floats.empty()) std::memcpy(bytes.data(), floats.data(), floats.size_bytes());
    return;
  }
  for (std::size_t i = 0; i < floats.size(); ++i) {
    if (type == DType::f64) {
      store(bytes, i, static_cast<double>(floats[i]));
    } else if (const SmallFloat& small = *small_float(type); small.sign == 0x80) {
      store(bytes, i, static_cast<std::uint8_t>(encode(small, floats[i])));
    } else {
      store(bytes, i, encode(small, floats[i]));
    }
  }
}

std::optional<std::size_t> find_nonfinite(DType type, std::span<const std::byte> bytes) noexcept {
  const std::size_t count = bytes.size() * 8 / bits(type);
  for (std::size_t i = 0; i < count; ++i)
    if (!finite_pattern(std::bit_cast<std::uint32_t>(widen_one(type, bytes, i)))) return i;
  return std::nullopt;
}

}  // namespace reference
}  // namespace lmq
