#include "lmq/io/gguf_encode.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "gguf_blocks.hpp"
#include "lmq/io/scaled_levels.hpp"
#include "small_floats.hpp"

namespace lmq {
namespace {

constexpr std::size_t kMaxElements = 256;

constexpr std::array kTypes{
    GgufType{35, "tq2_0", 256, 66, 37}, GgufType{2, "q4_0", 32, 18, 2}, GgufType{20, "iq4_nl", 32, 18, 25},
    GgufType{3, "q4_1", 32, 20, 3},     GgufType{8, "q8_0", 32, 34, 7}, GgufType{1, "f16", 1, 2, 1},
    GgufType{30, "bf16", 1, 2, 32},     GgufType{0, "f32", 1, 4, 0},
};

/// The integers that codes of a type with one scale stand for; nullptr: a type without such.
const ScaledLevels* levels_of(std::uint32_t type) {
  static const ScaledLevels kTernary = make_scaled_levels(-1, 1, 0.55, 4),
                            kIq4{{std::begin(kIq4Values), std::end(kIq4Values)}, 40, 160};
  switch (type) {
    case 2:
      return &signed_levels(4);
    case 8:
      return &signed_levels(8);
    case 20:
      return &kIq4;
    case 35:
      return &kTernary;
    default:
      return nullptr;
  }
}

using Codes = std::array<std::uint8_t, kMaxElements>;

/// What a search has found.
struct Best {
  double error = std::numeric_limits<double>::infinity();
  std::uint16_t scale = 0, least = 0;
  Codes codes{};
};

void put16(std::byte* at, std::uint16_t value) noexcept { std::memcpy(at, &value, sizeof value); }

/// 16 bytes: low nibbles are the first half's codes, high ones the second's.
void put_nibbles(std::byte* at, const Codes& codes) noexcept {
  for (std::size_t j = 0; j < 16; ++j) at[j] = static_cast<std::byte>(codes[j] | codes[j + 16] << 4);
}

void put_block(const GgufType& type, const Best& best, std::byte* out) noexcept {
  switch (type.id) {
    case 2:
    case 20:
      put16(out, best.scale);
      put_nibbles(out + 2, best.codes);
      break;
    case 3:
      put16(out, best.scale), put16(out + 2, best.least);
      put_nibbles(out + 4, best.codes);
      break;
    case 8:
      put16(out, best.scale);
      for (std::size_t j = 0; j < 32; ++j) out[2 + j] = static_cast<std::byte>(best.codes[j] - 128);
      break;
    default:  // TQ2_0
      for (std::size_t half = 0; half < 2; ++half)
        for (std::size_t j = 0; j < 32; ++j) {
          const std::uint8_t* const code = best.codes.data() + half * 128 + j;
          out[half * 32 + j] = static_cast<std::byte>(code[0] | code[32] << 2 | code[64] << 4 | code[96] << 6);
        }
      put16(out + 64, best.scale);
  }
}

/// Codes of Q4_1 for two scales that are halves.
double assign_least(std::span<const float> values, float d, float m, Codes& codes) noexcept {
  double error = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double q = d == 0 ? 0 : (double{values[i]} - m) / d;
    codes[i] = static_cast<std::uint8_t>(q <= 0 ? 0 : q >= 15 ? 15 : static_cast<int>(q + 0.5));
    const double e = double{values[i]} - double{d * static_cast<float>(codes[i]) + m};
    error += e * e;
  }
  return error;
}

void search_least(std::span<const float> values, Best& best) noexcept {
  const auto [low, high] = std::ranges::minmax(values);
  Codes codes;
  for (int start = 0; start < 24; ++start) {
    const double cut = (start % 6) * 0.03, range = double{high} - low, begin = low + range * cut * (start / 6 % 2),
                 end = high - range * cut * (start / 12);
    double d = (end - begin) / 15, m = begin;
    for (int round = 0; round < 6; ++round) {
      const std::uint16_t scale = to_half(static_cast<float>(d)), least = to_half(static_cast<float>(m));
      const double error = assign_least(values, half_value(scale), half_value(least), codes);
      if (error < best.error) best = {error, scale, least, codes};
      const auto n = static_cast<double>(values.size());
      double sq = 0, sqq = 0, sx = 0, sxq = 0;
      for (std::size_t i = 0; i < values.size(); ++i) {
        const double q = codes[i], x = values[i];
        sq += q, sqq += q * q, sx += x, sxq += x * q;
      }
      const double divisor = n * sqq - sq * sq;
      if (divisor <= 0) break;
      d = (n * sxq - sx * sq) / divisor, m = (sx - d * sq) / n;
    }
  }
}

double encode_plain(const GgufType& type, float value, std::byte* out) noexcept {
  float decoded = value;
  if (type.id == 0) {
    std::memcpy(out, &value, sizeof value);
  } else {
    const std::uint16_t bits = type.id == 1 ? to_half(value) : to_bf16(value);
    put16(out, bits);
    decoded = type.id == 1 ? half_value(bits) : std::bit_cast<float>(std::uint32_t{bits} << 16);
  }
  const double e = double{value} - double{decoded};
  return e * e;
}

/// The values span q of the 15 steps, and begin at code c of what the block's numbers say.
bool find_exact_least(std::span<const float> values, Best& best) noexcept {
  const auto [low, high] = std::ranges::minmax(values);
  for (int q = 1; q <= 15; ++q) {
    best.scale = to_half((high - low) / static_cast<float>(q));
    const float scale = half_value(best.scale);
    for (int c = 0; c <= 15 - q; ++c) {
      best.least = to_half(low - static_cast<float>(c) * scale);
      const float least = half_value(best.least);
      if (scale * static_cast<float>(c) + least != low || scale * static_cast<float>(c + q) + least != high) continue;
      if (assign_least(values, scale, least, best.codes) == 0) return true;
    }
  }
  return false;
}

}  // namespace

std::span<const GgufType> gguf_types() noexcept { return kTypes; }

const GgufType* find_gguf_type(std::string_view name) noexcept {
  const auto* const at = std::ranges::find(kTypes, name, &GgufType::name);
  return at == kTypes.end() ? nullptr : &*at;
}

double encode_block(const GgufType& type, std::span<const float> values, std::span<std::byte> out) noexcept {
  if (type.elements == 1) return encode_plain(type, values[0], out.data());
  Best best;
  if (const ScaledLevels* const levels = levels_of(type.id)) {
    const FoundScale found = best_scale(*levels, DType::f16, values, std::span(best.codes).first(values.size()));
    best.error = found.error, best.scale = to_half(found.scale);
  } else {
    search_least(values, best);
  }
  put_block(type, best, out.data());
  return best.error;
}

bool encode_block_exactly(const GgufType& type, std::span<const float> values, std::span<std::byte> out) noexcept {
  if (type.elements == 1) return encode_plain(type, values[0], out.data()) == 0;
  Best best;
  if (const ScaledLevels* const levels = levels_of(type.id)) {
    float scale = 0;
    if (!exact_scale(*levels, DType::f16, values, std::span(best.codes).first(values.size()), scale)) return false;
    best.scale = to_half(scale);
  } else if (!find_exact_least(values, best)) {
    return false;
  }
  put_block(type, best, out.data());
  return true;
}

}  // namespace lmq
