#include "small_floats.hpp"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace lmq {
namespace {

/// An 8-bit float format in words: what its bits mean.
struct F8Format {
  int mantissa_bits;
  int bias;
  bool ieee;  ///< the highest exponent holds infinities and NaN
  bool fnuz;  ///< no negative zero: 0x80 is the only NaN
};

float f8_value(std::uint8_t byte, const F8Format& format) noexcept {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const int exponent_bits = 7 - format.mantissa_bits;
  const int exponent = byte >> format.mantissa_bits & ((1 << exponent_bits) - 1);
  const int mantissa = byte & ((1 << format.mantissa_bits) - 1);
  const float sign = byte & 0x80 ? -1.0F : 1.0F;
  if (format.fnuz && byte == 0x80) return kNan;
  if (format.ieee && exponent == (1 << exponent_bits) - 1)
    return mantissa == 0 ? sign * std::numeric_limits<float>::infinity() : kNan;
  if (!format.ieee && !format.fnuz && (byte & 0x7F) == 0x7F) return kNan;
  const int whole = exponent == 0 ? mantissa : mantissa | 1 << format.mantissa_bits;
  const int power = (exponent == 0 ? 1 : exponent) - format.bias - format.mantissa_bits;
  return sign * std::ldexp(static_cast<float>(whole), power);
}

std::array<float, 256> f8_table(const F8Format& format) noexcept {
  std::array<float, 256> table{};
  for (std::size_t byte = 0; byte < table.size(); ++byte)
    table[byte] = f8_value(static_cast<std::uint8_t>(byte), format);
  return table;
}

/// 2^(bits - 127); the smallest is subnormal, 255 is NaN.
float exponent_value(std::uint8_t bits) noexcept {
  if (bits == 255) return std::numeric_limits<float>::quiet_NaN();
  return std::bit_cast<float>(bits == 0 ? std::uint32_t{1} << 22 : std::uint32_t{bits} << 23);
}

float bf16_value(std::uint16_t bits) noexcept { return std::bit_cast<float>(std::uint32_t{bits} << 16); }

template <class T, class Convert>
void convert(std::span<const std::byte> bytes, std::span<float> floats, Convert to_float) noexcept {
  for (std::size_t i = 0; i < floats.size(); ++i) {
    T value;
    std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
    floats[i] = to_float(value);
  }
}

}  // namespace

const std::array<float, 256>& f8_values(DType type) noexcept {
  static const std::array kTables{f8_table({3, 7, false, false}), f8_table({2, 15, true, false}),
                                  f8_table({3, 8, false, true}), f8_table({2, 16, false, true})};
  switch (type) {
    case DType::f8_e5m2:
      return kTables[1];
    case DType::f8_e4m3fnuz:
      return kTables[2];
    case DType::f8_e5m2fnuz:
      return kTables[3];
    default:
      return kTables[0];
  }
}

void to_floats(DType type, std::span<const std::byte> bytes, std::span<float> floats) noexcept {
  switch (type) {
    case DType::f32:
      convert<float>(bytes, floats, [](float value) { return value; });
      break;
    case DType::f64:
      convert<double>(bytes, floats, [](double value) { return static_cast<float>(value); });
      break;
    case DType::f16:
      convert<std::uint16_t>(bytes, floats, half_value);
      break;
    case DType::bf16:
      convert<std::uint16_t>(bytes, floats, bf16_value);
      break;
    case DType::f8_e8m0:
      convert<std::uint8_t>(bytes, floats, exponent_value);
      break;
    default: {
      const std::array<float, 256>& table = f8_values(type);
      convert<std::uint8_t>(bytes, floats, [&](std::uint8_t byte) { return table[byte]; });
    }
  }
}

std::uint16_t to_half(float value) noexcept {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value), sign = bits >> 16 & 0x8000;
  const float magnitude = std::bit_cast<float>(bits & 0x7FFFFFFF);
  if (magnitude >= 65504) return static_cast<std::uint16_t>(sign | 0x7BFF);
  if (magnitude < 0x1p-14F)  // subnormal: whole multiples of 2^-24; adding 2^-1 leaves just those bits
    return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(magnitude + 0.5F) - 0x3F000000U));
  const std::uint32_t rounded = (bits & 0x7FFFFFFF) + 0xFFF + (bits >> 13 & 1);
  return static_cast<std::uint16_t>(sign | ((rounded >> 13) - (112U << 10)));
}

std::uint16_t to_bf16(float value) noexcept {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

}  // namespace lmq
