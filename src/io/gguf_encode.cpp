#include "lmq/io/gguf_encode.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "gguf_blocks.hpp"
#include "small_floats.hpp"

namespace lmq {
namespace {

constexpr std::size_t kMaxElements = 256;

constexpr std::array kTypes{
    GgufType{35, "tq2_0", 256, 66, 37}, GgufType{2, "q4_0", 32, 18, 2}, GgufType{20, "iq4_nl", 32, 18, 25},
    GgufType{3, "q4_1", 32, 20, 3},     GgufType{8, "q8_0", 32, 34, 7}, GgufType{1, "f16", 1, 2, 1},
    GgufType{30, "bf16", 1, 2, 32},     GgufType{0, "f32", 1, 4, 0},
};

/// The half nearest to a finite value, ties to even; the largest one for what is beyond.
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

/// The integers that codes of a type with one scale stand for, ascending, and where its largest value is sought: the
/// scale runs over largest / [low, high] of both signs.
struct Levels {
  std::vector<int> values;
  double low, high;
};
Levels make_levels(int first, int last, double low, double high) {
  Levels levels{{}, low, high};
  for (int v = first; v <= last; ++v) levels.values.push_back(v);
  return levels;
}
const Levels* levels_of(std::uint32_t type) {
  static const Levels kQ4 = make_levels(-8, 7, 2.5, 10.5), kTernary = make_levels(-1, 1, 0.55, 4),
                      kQ8 = make_levels(-128, 127, 112, 130),
                      kIq4{{std::begin(kIq4Values), std::end(kIq4Values)}, 40, 160};
  switch (type) {
    case 2:
      return &kQ4;
    case 8:
      return &kQ8;
    case 20:
      return &kIq4;
    case 35:
      return &kTernary;
    default:
      return nullptr;
  }
}

using Codes = std::array<std::uint8_t, kMaxElements>;

/// Index of the level nearest to `x`.
std::size_t nearest(const std::vector<int>& levels, double x) noexcept {
  std::size_t low = 0, high = levels.size() - 1;  // by halves: the midpoints are ascending
  while (low < high) {
    const std::size_t middle = (low + high) / 2;
    if (x > 0.5 * (levels[middle] + levels[middle + 1]))
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

/// Codes for a scale that is a half, and the squared error of what they decode to.
double assign(const std::vector<int>& levels, std::span<const float> values, float d, Codes& codes) noexcept {
  double error = 0;
  const double inverse = d == 0 ? 0 : 1 / double{d};
  for (std::size_t i = 0; i < values.size(); ++i) {
    codes[i] = static_cast<std::uint8_t>(nearest(levels, double{values[i]} * inverse));
    const double e = double{values[i]} - double{d * static_cast<float>(levels[codes[i]])};
    error += e * e;
  }
  return error;
}

/// What a search has found.
struct Best {
  double error = std::numeric_limits<double>::infinity();
  std::uint16_t scale = 0, least = 0;
  Codes codes{};
};

/// Tries the half nearest to `d` and both its neighbours.
void try_scale(const std::vector<int>& levels, std::span<const float> values, double d, Best& best) noexcept {
  const std::uint16_t middle = to_half(static_cast<float>(d));
  Codes codes;
  for (const int step : {0, -1, 1}) {
    const auto half = static_cast<std::uint16_t>(middle + step);
    if ((half & 0x7FFF) >= 0x7C00 || ((middle ^ half) & 0x8000) != 0) continue;
    const double error = assign(levels, values, half_value(half), codes);
    if (error < best.error) best.error = error, best.scale = half, best.codes = codes;
  }
}

/// One place where a code changes: at the inverse scale s the value's code becomes `code`.
struct Change {
  double s;
  std::uint16_t value;
  std::uint8_t code;
};

/// Scales of one sign: between two changes of codes the error is Sxx - Sxq^2 / Sqq at its best scale, Sxq / Sqq.
void search(const Levels& levels, std::span<const float> values, double largest, int sign, Best& best) {
  const std::vector<int>& level = levels.values;
  const double first = levels.low / largest, last = levels.high / largest;
  thread_local std::vector<Change> changes;
  changes.clear();
  std::array<int, kMaxElements> now;
  double sxq = 0, sqq = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double x = sign * double{values[i]};
    const std::size_t from = nearest(level, x * first), to = nearest(level, x * last);
    now[i] = level[from];
    sxq += x * now[i], sqq += double(now[i]) * now[i];
    for (std::size_t k = from; k != to; k += x > 0 ? 1 : std::size_t(-1)) {
      const std::size_t next = x > 0 ? k + 1 : k - 1;
      changes.push_back(
          {0.5 * (level[k] + level[next]) / x, static_cast<std::uint16_t>(i), static_cast<std::uint8_t>(next)});
    }
  }
  std::ranges::sort(changes, [](const Change& a, const Change& b) {
    return a.s != b.s ? a.s < b.s : a.value != b.value ? a.value < b.value : a.code < b.code;
  });
  double most = sqq > 0 && sxq > 0 ? sxq * sxq / sqq : 0, scale = sqq > 0 ? sxq / sqq : 0;
  for (const Change& change : changes) {
    const double x = sign * double{values[change.value]};
    const int was = now[change.value], is = level[change.code];
    now[change.value] = is;
    sxq += x * (is - was), sqq += double(is) * is - double(was) * was;
    if (sqq > 0 && sxq > 0 && sxq * sxq > most * sqq) most = sxq * sxq / sqq, scale = sxq / sqq;
  }
  try_scale(level, values, sign * scale, best);
}

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

/// The scale is one of those that make the value of largest magnitude a level.
bool find_exact(const Levels& levels, std::span<const float> values, Best& best) noexcept {
  const float top = *std::ranges::max_element(values, {}, [](float x) { return std::abs(x); });
  for (const int level : levels.values) {
    if (level == 0) continue;
    const std::uint16_t scale = to_half(top / static_cast<float>(level));
    if (half_value(scale) * static_cast<float>(level) != top) continue;
    best.scale = scale;
    if (assign(levels.values, values, half_value(scale), best.codes) == 0) return true;
  }
  return false;
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
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::abs(value));
  Best best;
  if (const Levels* const levels = levels_of(type.id)) {
    if (largest > 0) {
      search(*levels, values, largest, 1, best);
      search(*levels, values, largest, -1, best);
    }
    Best zero;  // a scale of 0 where no half is small enough
    zero.error = assign(levels->values, values, 0, zero.codes);
    if (!(best.error <= zero.error)) best = zero;
  } else {
    search_least(values, best);
  }
  put_block(type, best, out.data());
  return best.error;
}

bool encode_block_exactly(const GgufType& type, std::span<const float> values, std::span<std::byte> out) noexcept {
  if (type.elements == 1) return encode_plain(type, values[0], out.data()) == 0;
  Best best;
  const Levels* const levels = levels_of(type.id);
  const bool zero = std::ranges::all_of(values, [](float x) { return x == 0; });
  if (zero && levels != nullptr)
    static_cast<void>(assign(levels->values, values, 0, best.codes));
  else if (levels != nullptr ? !find_exact(*levels, values, best) : !find_exact_least(values, best))
    return false;
  put_block(type, best, out.data());
  return true;
}

}  // namespace lmq
