#include "gguf_blocks.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "small_floats.hpp"

namespace lmq {
namespace {

using Byte = std::uint8_t;

float half_at(const Byte* at) noexcept {
  std::uint16_t value;
  std::memcpy(&value, at, sizeof value);
  return half_value(value);
}

/// Elements of one block, from half of which come the low nibbles of 16 bytes, then the high ones.
template <class Value>
void nibbles(const Byte* codes, float* out, Value value) noexcept {
  for (int j = 0; j < 16; ++j) {
    out[j] = value(codes[j] & 15, j);
    out[j + 16] = value(codes[j] >> 4, j + 16);
  }
}

void q4_0(const Byte* in, float* out) noexcept {
  const float d = half_at(in);
  nibbles(in + 2, out, [d](int q, int) { return d * static_cast<float>(q - 8); });
}

void q4_1(const Byte* in, float* out) noexcept {
  const float d = half_at(in), m = half_at(in + 2);
  nibbles(in + 4, out, [d, m](int q, int) { return d * static_cast<float>(q) + m; });
}

void q5_0(const Byte* in, float* out) noexcept {
  const float d = half_at(in);
  std::uint32_t high;
  std::memcpy(&high, in + 2, sizeof high);
  nibbles(in + 6, out,
          [d, high](int q, int j) { return d * static_cast<float>((q | static_cast<int>(high >> j & 1) << 4) - 16); });
}

void q5_1(const Byte* in, float* out) noexcept {
  const float d = half_at(in), m = half_at(in + 2);
  std::uint32_t high;
  std::memcpy(&high, in + 4, sizeof high);
  nibbles(in + 8, out,
          [d, m, high](int q, int j) { return d * static_cast<float>(q | static_cast<int>(high >> j & 1) << 4) + m; });
}

void q8_0(const Byte* in, float* out) noexcept {
  const float d = half_at(in);
  for (int j = 0; j < 32; ++j) out[j] = static_cast<float>(static_cast<std::int8_t>(in[2 + j])) * d;
}

/// One sign a bit: 1 is +d.
void q1_0(const Byte* in, float* out) noexcept {
  const float d = half_at(in);
  for (int j = 0; j < 128; ++j) out[j] = in[2 + j / 8] >> j % 8 & 1 ? d : -d;
}

void q2_0(const Byte* in, float* out) noexcept {
  const float d = half_at(in);
  for (int j = 0; j < 64; ++j) out[j] = d * static_cast<float>((in[2 + j / 4] >> 2 * (j % 4) & 3) - 1);
}

/// For each half of 128: four planes of two bits in 32 bytes; 16 elements share a scale.
void q2_k(const Byte* in, float* out) noexcept {
  const Byte *scales = in, *codes = in + 16;
  const float d = half_at(in + 80), least = half_at(in + 82);
  for (int run = 0; run < 16; ++run) {
    const float scale = d * static_cast<float>(scales[run] & 15), offset = least * static_cast<float>(scales[run] >> 4);
    const Byte* const from = codes + run / 8 * 32 + run % 2 * 16;
    const int shift = run % 8 / 2 * 2;
    for (int j = 0; j < 16; ++j) out[run * 16 + j] = scale * static_cast<float>(from[j] >> shift & 3) - offset;
  }
}

void q3_k(const Byte* in, float* out) noexcept {
  const Byte *mask = in, *codes = in + 32, *packed = in + 96;
  const float d = half_at(in + 108);
  for (int run = 0; run < 16; ++run) {
    const int low = run < 8 ? packed[run] & 15 : packed[run - 8] >> 4;
    const int high = packed[8 + run % 4] >> 2 * (run / 4) & 3;
    const float scale = d * static_cast<float>((low | high << 4) - 32);
    const int column = run % 2 * 16, shift = run % 8 / 2 * 2, plane = run / 2;
    const Byte* const from = codes + run / 8 * 32 + column;
    for (int j = 0; j < 16; ++j) {
      const int q = (from[j] >> shift & 3) - (mask[column + j] >> plane & 1 ? 0 : 4);
      out[run * 16 + j] = scale * static_cast<float>(q);
    }
  }
}

/// Eight scales and eight minima of 6 bits in 12 bytes.
struct ScaleMin {
  int scale, min;
};
ScaleMin scale_min(const Byte* s, int j) noexcept {
  if (j < 4) return {s[j] & 63, s[j + 4] & 63};
  return {(s[j + 4] & 15) | s[j - 4] >> 6 << 4, s[j + 4] >> 4 | s[j] >> 6 << 4};
}

void q4_k(const Byte* in, float* out) noexcept {
  const float d = half_at(in), least = half_at(in + 2);
  for (int run = 0; run < 8; ++run) {
    const ScaleMin pair = scale_min(in + 4, run);
    const float scale = d * static_cast<float>(pair.scale), offset = least * static_cast<float>(pair.min);
    const Byte* const codes = in + 16 + run / 2 * 32;
    for (int j = 0; j < 32; ++j)
      out[run * 32 + j] = scale * static_cast<float>(codes[j] >> 4 * (run % 2) & 15) - offset;
  }
}

void q5_k(const Byte* in, float* out) noexcept {
  const float d = half_at(in), least = half_at(in + 2);
  const Byte* const high = in + 16;
  for (int run = 0; run < 8; ++run) {
    const ScaleMin pair = scale_min(in + 4, run);
    const float scale = d * static_cast<float>(pair.scale), offset = least * static_cast<float>(pair.min);
    const Byte* const codes = in + 48 + run / 2 * 32;
    for (int j = 0; j < 32; ++j) {
      const int q = (codes[j] >> 4 * (run % 2) & 15) | (high[j] >> run & 1) << 4;
      out[run * 32 + j] = scale * static_cast<float>(q) - offset;
    }
  }
}

void q6_k(const Byte* in, float* out) noexcept {
  const float d = half_at(in + 208);
  for (int run = 0; run < 8; ++run) {  // 32 elements
    const int half = run / 4, quarter = run % 4;
    const Byte *low = in + half * 64 + quarter % 2 * 32, *high = in + 128 + half * 32;
    for (int j = 0; j < 32; ++j) {
      const float scale = d * static_cast<float>(static_cast<std::int8_t>(in[192 + run * 2 + j / 16]));
      const int q = (low[j] >> 4 * (quarter / 2) & 15) | (high[j] >> 2 * quarter & 3) << 4;
      out[run * 32 + j] = scale * static_cast<float>(q - 32);
    }
  }
}

void iq4_nl(const Byte* in, float* out) noexcept {
  const float d = half_at(in);
  nibbles(in + 2, out, [d](int q, int) { return d * static_cast<float>(kIq4Values[q]); });
}

void iq4_xs(const Byte* in, float* out) noexcept {
  const float d = half_at(in);
  std::uint16_t high;
  std::memcpy(&high, in + 2, sizeof high);
  for (int run = 0; run < 8; ++run) {
    const int scale = (in[4 + run / 2] >> 4 * (run % 2) & 15) | (high >> 2 * run & 3) << 4;
    const float dl = d * static_cast<float>(scale - 32);
    nibbles(in + 8 + run * 16, out + run * 32, [dl](int q, int) { return dl * static_cast<float>(kIq4Values[q]); });
  }
}

/// The digits of a byte that holds ceil(v * 256 / 243): digit n is the whole part of 3 * (byte * 3^n mod 256) / 256.
float trit(Byte byte, int digit, float d) noexcept {
  constexpr std::array<int, 5> kPower{1, 3, 9, 27, 81};
  const int rest = byte * kPower[static_cast<std::size_t>(digit)] & 255;
  return d * static_cast<float>((rest * 3 >> 8) - 1);
}

void tq1_0(const Byte* in, float* out) noexcept {
  const float d = half_at(in + 52);
  const auto part = [&](int first, int width, int digits) {
    for (int n = 0; n < digits; ++n)
      for (int j = 0; j < width; ++j) *out++ = trit(in[first + j], n, d);
  };
  part(0, 32, 5);
  part(32, 16, 5);
  part(48, 4, 4);
}

void tq2_0(const Byte* in, float* out) noexcept {
  const float d = half_at(in + 64);
  for (int half = 0; half < 2; ++half)
    for (int plane = 0; plane < 4; ++plane)
      for (int j = 0; j < 32; ++j) *out++ = d * static_cast<float>((in[half * 32 + j] >> 2 * plane & 3) - 1);
}

/// Values of E2M1, doubled, so that they are integers.
constexpr std::int8_t kDoubledE2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

void mxfp4(const Byte* in, float* out) noexcept {
  // Half of 2^(e - 127), because the values are doubled; the two smallest are subnormal.
  const std::uint32_t e = in[0];
  const float d = std::bit_cast<float>(e < 2 ? 0x00200000U << e : (e - 1) << 23);
  nibbles(in + 1, out, [d](int q, int) { return d * static_cast<float>(kDoubledE2m1[q]); });
}

/// Half the value of an unsigned E4M3 scale; 0 and 0x7F are 0.
float nvfp4_scale(Byte bits) noexcept {
  if (bits == 0 || bits == 0x7F) return 0;
  return 0.5F * f8_values(DType::f8_e4m3)[bits & 0x7F];
}

void nvfp4(const Byte* in, float* out) noexcept {
  for (int run = 0; run < 4; ++run) {
    const float d = nvfp4_scale(in[run]);
    const Byte* const codes = in + 4 + run * 8;
    for (int j = 0; j < 8; ++j) {
      out[run * 16 + j] = d * static_cast<float>(kDoubledE2m1[codes[j] & 15]);
      out[run * 16 + j + 8] = d * static_cast<float>(kDoubledE2m1[codes[j] >> 4]);
    }
  }
}

template <auto one, std::uint32_t elements, std::uint32_t bytes>
void all(const Byte* in, std::size_t blocks, float* floats) noexcept {
  for (std::size_t i = 0; i < blocks; ++i) one(in + i * bytes, floats + i * elements);
}

template <auto one, std::uint32_t elements, std::uint32_t bytes>
constexpr BlockType row(std::uint32_t id, std::string_view name) {
  return {id, name, elements, bytes, all<one, elements, bytes>};
}
constexpr BlockType undecoded(std::uint32_t id, std::string_view name, std::uint32_t bytes) {
  return {id, name, 256, bytes, nullptr};
}

constexpr std::array kTypes{
    row<q4_0, 32, 18>(2, "Q4_0"),     row<q4_1, 32, 20>(3, "Q4_1"),      row<q5_0, 32, 22>(6, "Q5_0"),
    row<q5_1, 32, 24>(7, "Q5_1"),     row<q8_0, 32, 34>(8, "Q8_0"),      row<q2_k, 256, 84>(10, "Q2_K"),
    row<q3_k, 256, 110>(11, "Q3_K"),  row<q4_k, 256, 144>(12, "Q4_K"),   row<q5_k, 256, 176>(13, "Q5_K"),
    row<q6_k, 256, 210>(14, "Q6_K"),  row<iq4_nl, 32, 18>(20, "IQ4_NL"), row<iq4_xs, 256, 136>(23, "IQ4_XS"),
    row<tq1_0, 256, 54>(34, "TQ1_0"), row<tq2_0, 256, 66>(35, "TQ2_0"),  row<mxfp4, 32, 17>(39, "MXFP4"),
    row<nvfp4, 64, 36>(40, "NVFP4"),  row<q1_0, 128, 18>(41, "Q1_0"),    row<q2_0, 64, 18>(42, "Q2_0"),
    undecoded(16, "IQ2_XXS", 66),     undecoded(17, "IQ2_XS", 74),       undecoded(18, "IQ3_XXS", 98),
    undecoded(19, "IQ1_S", 50),       undecoded(21, "IQ3_S", 110),       undecoded(22, "IQ2_S", 82),
    undecoded(29, "IQ1_M", 56),
};

}  // namespace

std::span<const BlockType> block_types() noexcept { return kTypes; }

const BlockType* block_type(std::uint32_t id) noexcept {
  const auto* const at = std::ranges::find(kTypes, id, &BlockType::id);
  return at == kTypes.end() ? nullptr : &*at;
}

}  // namespace lmq
