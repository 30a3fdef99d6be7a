#include "lmq/base/quantized_unit.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

#include "lmq/base/math.hpp"

namespace lmq {
namespace {
/// 2^exponent for -126 <= exponent <= 127.
float power_of_two(int exponent) noexcept {
  return std::bit_cast<float>(static_cast<std::uint32_t>(exponent + 127) << 23);
}
}  // namespace

std::uint64_t QuantizedUnit::codebooks() const noexcept {
  return group == 0 || cols == 0 ? 1 : count / cols * ceil_div(cols, group);
}

std::vector<float> levels_of(const QuantizedUnit& unit, std::uint64_t book) {
  const auto at = static_cast<std::size_t>(book);
  if (unit.kind == CodebookKind::table) {
    const auto levels = std::span(unit.book).subspan(at * unit.levels, unit.levels);
    return {levels.begin(), levels.end()};
  }
  std::vector<float> levels(unit.levels);
  grid_levels(unit.book[2 * at], unit.book[2 * at + 1], levels);
  return levels;
}

int half_exponent(std::span<const float> book) noexcept {
  std::uint32_t largest = 0;  // magnitudes order like their bits
  for (const float level : book) largest = std::max(largest, std::bit_cast<std::uint32_t>(level) & 0x7FFFFFFF);
  if (largest == 0) return 0;
  const std::uint32_t rounded = largest + 0xFFF + (largest >> 13 & 1);
  return std::clamp(static_cast<int>(rounded >> 23) - 127 - 15, kMinHalfExponent, kMaxHalfExponent);
}

std::uint16_t to_scaled_half(float level, int exponent) noexcept {
  const float scaled = level * power_of_two(-exponent);
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(scaled), sign = bits >> 16 & 0x8000;
  const std::uint32_t magnitude = bits & 0x7FFFFFFF;
  if (magnitude < 0x38800000) {  // below 2^-14: the half is subnormal, adding 0.5 rounds to its quantum 2^-24
    const float rounded = std::bit_cast<float>(magnitude) + 0.5F;
    return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(rounded) - 0x3F000000));
  }
  const std::uint32_t rounded = (magnitude + 0xFFF + (magnitude >> 13 & 1) - (112U << 23)) >> 13;
  return static_cast<std::uint16_t>(sign | std::min<std::uint32_t>(rounded, 0x7BFF));
}

float from_scaled_half(std::uint16_t half, int exponent) noexcept {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000) << 16, magnitude = half & 0x7FFF;
  float value;
  if (magnitude >= 0x7C00) {
    value = std::bit_cast<float>(0x7F800000 | magnitude << 13);
  } else if (magnitude >= 0x0400) {
    value = std::bit_cast<float>((magnitude << 13) + (112U << 23));
  } else {
    value = static_cast<float>(magnitude) * power_of_two(-24);
  }
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) | sign) * power_of_two(exponent);
}

void round_levels(std::span<float> book, LevelType type) {
  if (type == LevelType::f32) return;
  const int exponent = half_exponent(book);
  for (float& level : book) level = from_scaled_half(to_scaled_half(level, exponent), exponent);
}

}  // namespace lmq
