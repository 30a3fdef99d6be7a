#include "lmq/kernels/assign.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "assign_simd.hpp"
#include "lmq/kernels/isa.hpp"
#include "lmq/kernels/keys.hpp"
#include "lmq/kernels/widen.hpp"
#include "unaligned.hpp"

namespace lmq {
namespace {
constexpr float kNever = std::numeric_limits<float>::infinity();
constexpr std::size_t kBlock = 1024;  // weights widened at once

bool is_sixteen(DType type) noexcept { return type == DType::bf16 || type == DType::f16; }

/// Signed key of the infinity of a 16-bit type: every finite key is below.
std::int16_t infinite_key(DType type) noexcept { return type == DType::bf16 ? 0x7F80 : 0x7C00; }

/// Magnitude pattern of the smallest value >= magnitude (up) or the largest <= magnitude of a 16-bit type; the pattern
/// of infinity when there is none.
int magnitude16(DType type, float magnitude, bool up) noexcept {
  const auto pattern = std::bit_cast<std::uint32_t>(magnitude);
  if (type == DType::bf16) return static_cast<int>((pattern + (up ? 0xFFFFu : 0u)) >> 16);
  if (magnitude < 0x1p-14f) {  // subnormal F16: steps of 2^-24
    const double steps = double{magnitude} * 0x1p24;
    return static_cast<int>(up ? std::ceil(steps) : std::floor(steps));
  }
  const std::uint32_t rebias = 112u << 23;
  return static_cast<int>(std::min((pattern - rebias + (up ? 0x1FFFu : 0u)) >> 13, 0x7C00u));
}

/// Smallest signed key whose value is >= boundary (that of -0 when +0 is the smallest value), at most infinite_key.
std::int16_t first_key(DType type, float boundary) noexcept {
  const int end = infinite_key(type);
  if (boundary > 0) return static_cast<std::int16_t>(std::min(magnitude16(type, boundary, true), end));
  return static_cast<std::int16_t>(-std::min(magnitude16(type, std::fabs(boundary), false), end - 1) - 1);
}

template <class T>
T load(const std::byte* at) noexcept {
  T word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

/// Four codes at a time: fewer loads and stores than one by one.
void look_up16(const std::byte* patterns, std::size_t count, const Code* table, Code* codes) noexcept {
  std::size_t i = 0;
  for (; i + 4 <= count; i += 4) {
    const auto word = load<std::uint64_t>(patterns + 2 * i);
    const std::uint32_t found = table[word & 0xFFFF] | std::uint32_t{table[word >> 16 & 0xFFFF]} << 8 |
                                std::uint32_t{table[word >> 32 & 0xFFFF]} << 16 |
                                std::uint32_t{table[word >> 48]} << 24;
    std::memcpy(codes + i, &found, sizeof found);
  }
  for (; i < count; ++i) codes[i] = table[load<std::uint16_t>(patterns + 2 * i)];
}

void look_up8(const std::byte* patterns, std::size_t count, const Code* table, Code* codes) noexcept {
  std::size_t i = 0;
  for (; i + 4 <= count; i += 4) {
    const auto word = load<std::uint32_t>(patterns + i);
    const std::uint32_t found = table[word & 0xFF] | std::uint32_t{table[word >> 8 & 0xFF]} << 8 |
                                std::uint32_t{table[word >> 16 & 0xFF]} << 16 | std::uint32_t{table[word >> 24]} << 24;
    std::memcpy(codes + i, &found, sizeof found);
  }
  for (; i < count; ++i) codes[i] = table[static_cast<std::uint8_t>(patterns[i])];
}

Code search(const float* boundaries, std::size_t count, float value) noexcept {
  std::size_t first = 0;
  for (std::size_t length = count; length > 0;) {
    const std::size_t half = length - length / 2;
    first += boundaries[first + half - 1] <= value ? half : 0;
    length -= half;
  }
  return static_cast<Code>(first);
}
}  // namespace

float level_boundary(float below, float above) noexcept {
  if (!(below < above)) return kNever;
  // sum + rest == below + above exactly (two-sum).
  const double a = below, b = above, sum = a + b, part = sum - a, rest = (a - (sum - part)) + (b - part);
  // Is 2 * value > below + above? 2 * value and sum are doubles, |rest| is at most half the gap around sum.
  const auto nearer = [&](float value) { return 2 * double{value} > sum || (2 * double{value} == sum && rest < 0); };
  std::uint32_t key = float_key(static_cast<float>(sum / 2));  // at most one step away
  while (!nearer(key_float(key))) ++key;
  while (nearer(key_float(key - 1 - (key == 0x80000000u)))) key -= 1 + (key == 0x80000000u);  // over the key of -0
  return key_float(key);
}

void level_boundaries(std::span<const float> levels, std::span<float> boundaries) noexcept {
  float next = kNever;  // of equal levels the first is used: all their boundaries lie where the last one's is
  for (std::size_t k = boundaries.size(); k-- > 0;) {
    if (levels[k] < levels[k + 1]) next = level_boundary(levels[k], levels[k + 1]);
    boundaries[k] = next;
  }
}

void NearestLevel::prepare(std::span<const float> levels, DType type, std::size_t expected) {
  count_ = levels.size() - 1;
  level_boundaries(levels, std::span(boundaries_).first(count_));
  choose_way(type, expected);
}

void NearestLevel::prepare_boundaries(std::span<const float> boundaries, DType type, std::size_t expected) {
  count_ = boundaries.size();
  std::ranges::transform(boundaries, boundaries_.begin(), [](float value) { return value + 0.0f; });  // -0 is +0
  choose_way(type, expected);
}

void NearestLevel::choose_way(DType type, std::size_t expected) {
  constexpr std::size_t kFew = 20, kMany = 1 << 15;  // a linear compare beats a table up to some 20 boundaries
  type_ = type;
  while (count_ > 0 && boundaries_[count_ - 1] == kNever) --count_;
  if (count_ == 0) {
    way_ = Way::constant;
  } else if (bits(type) == 8) {
    way_ = Way::table8;
    prepare_table8();
  } else if (is_sixteen(type) && count_ <= kFew) {
    way_ = Way::compare16;
    prepare_compare16();
  } else if (is_sixteen(type) && expected >= kMany) {
    way_ = Way::table16;
    prepare_table16();
  } else if (count_ <= kFew) {
    way_ = Way::compare32;
  } else if (expected >= kMany) {
    way_ = Way::coarse32;
    prepare_coarse32();
  } else {
    way_ = Way::search32;
  }
}

void NearestLevel::prepare_compare16() {
  for (std::size_t k = 0; k < count_; ++k) keys_[k] = static_cast<std::int16_t>(first_key(type_, boundaries_[k]) - 1);
}

void NearestLevel::prepare_table16() {
  table_.assign(65536, static_cast<Code>(0));
  int key = -int{infinite_key(type_)};
  for (std::size_t k = 0; k <= count_; ++k) {
    const int end = k < count_ ? first_key(type_, boundaries_[k]) : infinite_key(type_);
    for (; key < end; ++key) table_[pattern_of_key16(static_cast<std::int16_t>(key))] = static_cast<Code>(k);
  }
}

void NearestLevel::prepare_table8() {
  table_.resize(256);
  for (std::size_t p = 0; p < 256; ++p) {
    const float value = widen_pattern(type_, static_cast<std::uint16_t>(p));
    table_[p] = std::isnan(value) ? Code{0} : search(boundaries_.data(), count_, value);
  }
}

// By the upper 16 bits of a float: the code of the lowest value that has them. The rest is a step or two from there.
void NearestLevel::prepare_coarse32() {
  std::fill(boundaries_.begin() + static_cast<std::ptrdiff_t>(count_), boundaries_.end(), kNever);
  table_.resize(65536);
  for (std::uint32_t upper = 0; upper < 65536; ++upper) {
    const std::uint32_t lowest = upper >> 15 ? upper << 16 | 0xFFFFu : upper << 16;
    table_[upper] = finite_pattern(lowest) ? search(boundaries_.data(), count_, std::bit_cast<float>(lowest)) : Code{0};
  }
}

void NearestLevel::assign_floats(std::span<const float> weights, std::span<Code> codes) const noexcept {
  const auto* bytes = reinterpret_cast<const std::byte*>(weights.data());
  if (way_ == Way::compare32) return count_boundaries32(bytes, codes.size(), boundaries_.data(), count_, codes.data());
  if (way_ == Way::coarse32) {
    for (std::size_t i = 0; i < codes.size(); ++i) {
      const float value = weights[i];
      std::size_t code = table_[std::bit_cast<std::uint32_t>(value) >> 16];
      code += value >= boundaries_[code];  // boundaries_[255] is infinite
      while (value >= boundaries_[code]) ++code;
      codes[i] = static_cast<Code>(code);
    }
    return;
  }
  for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = search(boundaries_.data(), count_, weights[i]);
}

void NearestLevel::assign(std::span<const std::byte> weights, std::span<Code> codes) const noexcept {
  if (baseline_forced()) return assign_reference(weights, codes);
  if (codes.empty()) return;
  switch (way_) {
    case Way::constant:
      std::memset(codes.data(), 0, codes.size());
      return;
    case Way::compare16:
      return count_thresholds16(weights.data(), codes.size(), keys_.data(), count_, codes.data());
    case Way::table16:
      return look_up16(weights.data(), codes.size(), table_.data(), codes.data());
    case Way::table8:
      return look_up8(weights.data(), codes.size(), table_.data(), codes.data());
    default:
      break;
  }
  const std::size_t size = bits(type_) / 8;
  std::array<float, kBlock> floats;
  for (std::size_t begin = 0; begin < codes.size(); begin += kBlock) {
    const std::size_t count = std::min(kBlock, codes.size() - begin);
    const auto block = std::span(floats).first(count);
    widen(type_, weights.subspan(begin * size, count * size), block);
    assign_floats(block, codes.subspan(begin, count));
  }
}

void NearestLevel::assign_reference(std::span<const std::byte> weights, std::span<Code> codes) const noexcept {
  const std::size_t size = bits(type_) / 8;
  for (std::size_t i = 0; i < codes.size(); ++i) {
    float value;
    reference::widen(type_, weights.subspan(i * size, size), std::span(&value, 1));
    codes[i] = search(boundaries_.data(), count_, value);
  }
}

}  // namespace lmq
