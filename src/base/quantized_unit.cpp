#include "lmq/base/quantized_unit.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <iterator>

#include "lmq/base/math.hpp"

namespace lmq {
namespace {
/// 2^exponent for -126 <= exponent <= 127.
float power_of_two(int exponent) noexcept {
  return std::bit_cast<float>(static_cast<std::uint32_t>(exponent + 127) << 23);
}

/// The nearest number of 11 significant bits that is not above (up: not below) the level.
float outward(float level, bool up) noexcept {
  const auto pattern = std::bit_cast<std::uint32_t>(level), magnitude = pattern & 0x7FFFFFFF;
  const bool away = (pattern >> 31 == 0) == up;
  const std::uint32_t rounded = (away ? magnitude + 0x1FFF : magnitude) & ~0x1FFFu;
  return rounded >= 0x7F800000 ? level : std::bit_cast<float>(rounded | (pattern & 0x80000000));
}

/// The half nearest to the level that is not above (up: not below) it.
std::uint16_t outward_half(float level, int exponent, bool up) noexcept {
  std::uint16_t half = to_scaled_half(level, exponent);
  const float value = from_scaled_half(half, exponent);
  if (up ? value >= level : value <= level) return half;
  const bool away = (half >> 15 == 0) == up;  // from zero
  if (away) return (half & 0x7FFF) < 0x7BFF ? static_cast<std::uint16_t>(half + 1) : half;
  return (half & 0x7FFF) == 0 ? static_cast<std::uint16_t>(up ? 0x0001 : 0x8001) : static_cast<std::uint16_t>(half - 1);
}
}  // namespace

bool takes_whole_bits(CoderChoice coder) noexcept {
#define LMQ_CODER(name, number, whole_bits, row) whole_bits,
  constexpr bool kWholeBits[] = {
      false,
#include "lmq/base/coders.inc"
  };
#undef LMQ_CODER
  return static_cast<std::size_t>(coder) < std::size(kWholeBits) && kWholeBits[static_cast<std::size_t>(coder)];
}

std::uint64_t QuantizedUnit::codebooks() const noexcept {
  return group == 0 || cols == 0 ? 1 : count / cols * ceil_div(cols, group);
}

std::uint64_t QuantizedUnit::book_numbers() const noexcept {
  if (kind == CodebookKind::rank1) return (cols == 0 ? 0 : count / cols) + cols + levels;
  return codebooks() * numbers_per_codebook(kind, levels);
}

std::uint64_t numbers_per_codebook(CodebookKind kind, std::uint64_t levels) noexcept {
  switch (kind) {
    case CodebookKind::grid:
      return 2;
    case CodebookKind::bases:
      return static_cast<std::uint64_t>(std::bit_width(levels)) - (levels > 0 ? 1 : 0);
    case CodebookKind::centred:
      return 1;
    default:
      return levels;
  }
}

void expand_levels(CodebookKind kind, std::span<const float> numbers, std::span<float> levels) noexcept {
  switch (kind) {
    case CodebookKind::grid:
      return grid_levels(numbers[0], numbers[1], levels);
    case CodebookKind::bases:
      levels[0] = 0;
      for (std::size_t count = 1, j = 0; count < levels.size(); count *= 2, ++j)
        for (std::size_t c = count; c-- > 0;) {  // the codes of the first j signs become those of one more
          const float sum = levels[c];
          levels[2 * c] = sum - numbers[j] + 0.0F;
          levels[2 * c + 1] = sum + numbers[j] + 0.0F;
        }
      return;
    case CodebookKind::centred:
      for (std::size_t k = 0; k < levels.size(); ++k)
        levels[k] = (static_cast<float>(k) - static_cast<float>(levels.size() - 1) / 2) * numbers[0] + 0.0F;
      return;
    default:
      for (std::size_t k = 0; k < levels.size(); ++k) levels[k] = numbers[k] + 0.0F;
  }
}

std::vector<float> levels_of(const QuantizedUnit& unit, std::uint64_t book) {
  const std::uint64_t numbers = numbers_per_codebook(unit.kind, unit.levels);
  const std::uint64_t at = unit.kind == CodebookKind::rank1 ? unit.book.size() - numbers : book * numbers;
  std::vector<float> levels(unit.levels);
  expand_levels(unit.kind, std::span(unit.book).subspan(at, numbers), levels);
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

void round_levels_covering(std::span<float> book, std::size_t width, LevelType type) {
  if (type == LevelType::f32 || width == 0) return;
  std::vector<float> ends;
  for (std::size_t at = 0; at < book.size(); at += width)
    ends.push_back(outward(book[at], false)), ends.push_back(outward(book[at + width - 1], true));
  const int exponent = half_exponent(ends);
  for (std::size_t at = 0; at < book.size(); at += width) {
    const float first = book[at], last = book[at + width - 1];
    for (float& level : book.subspan(at, width))
      level = from_scaled_half(first < last && level == first  ? outward_half(level, exponent, false)
                               : first < last && level == last ? outward_half(level, exponent, true)
                                                               : to_scaled_half(level, exponent),
                               exponent);
  }
}

}  // namespace lmq
