#include "lmq/kernels/bitplane.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <vector>

#include "lmq/kernels/isa.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "bitplane.cpp"
#include "targets.hpp"
// foreach_target must come before highway.h
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace lmq::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Sixteen lanes of float as vectors of kWidth: partial sums of x over the set bits of whole words.
#if HWY_TARGET <= HWY_AVX3
using Lanes = hn::FixedTag<float, 16>;
#elif HWY_TARGET <= HWY_AVX2
using Lanes = hn::FixedTag<float, 8>;
#elif HWY_TARGET == HWY_SCALAR
using Lanes = hn::FixedTag<float, 1>;
#else
using Lanes = hn::FixedTag<float, 4>;
#endif
constexpr std::size_t kWidth = hn::MaxLanes(Lanes());
constexpr std::size_t kVectors = 16 / kWidth;

// The mask of kWidth bits from bit `from` of a word.
HWY_INLINE hn::Mask<Lanes> mask_of(std::uint64_t word, std::size_t from) {
#if HWY_TARGET <= HWY_AVX3
  return hn::Mask<Lanes>{static_cast<__mmask16>(word >> from)};
#else
  const hn::RebindToUnsigned<Lanes> du;
  const auto own = hn::Shl(hn::Set(du, 1), hn::Iota(du, 0));
  const auto bits = hn::Set(du, static_cast<std::uint32_t>(word >> from));
  return hn::RebindMask(Lanes(), hn::TestBit(bits, own));
#endif
}

// kRowsAtOnce rows side by side: each part of x is loaded once for them, and their sums do not wait for each other.
template <std::size_t kRowsAtOnce>
HWY_INLINE void rows_at_once(const std::uint64_t* signs, std::size_t words, const float* x, float* lanes16) {
  const Lanes d;
  hn::Vec<Lanes> sum[kRowsAtOnce][kVectors];
  for (auto& row : sum)
    for (auto& lanes : row) lanes = hn::Zero(d);
  for (std::size_t w = 0; w < words; ++w)
    for (std::size_t part = 0; part < 64; part += 16)
      for (std::size_t v = 0; v < kVectors; ++v) {
        const std::size_t from = part + v * kWidth;
        const auto value = hn::LoadU(d, x + 64 * w + from);
        for (std::size_t r = 0; r < kRowsAtOnce; ++r) {
          const auto mask = mask_of(signs[r * words + w], from);
#if HWY_TARGET <= HWY_AVX3
          sum[r][v].raw = _mm512_mask_add_ps(sum[r][v].raw, mask.raw, sum[r][v].raw, value.raw);
#else
          sum[r][v] = hn::Add(sum[r][v], hn::IfThenElseZero(mask, value));
#endif
        }
      }
  for (std::size_t r = 0; r < kRowsAtOnce; ++r)
    for (std::size_t v = 0; v < kVectors; ++v) hn::StoreU(sum[r][v], d, lanes16 + 16 * r + v * kWidth);
}

// x has room for whole words: zeros behind its end.
void sign_rows(const std::uint64_t* signs, std::size_t rows, std::size_t words, const float* x, float* lanes16) {
  std::size_t r = 0;
  for (; r + 4 <= rows; r += 4) rows_at_once<4>(signs + r * words, words, x, lanes16 + 16 * r);
  for (; r < rows; ++r) rows_at_once<1>(signs + r * words, words, x, lanes16 + 16 * r);
}

// differences[r] = number of set bits of row r xor a.
void xor_rows(const std::uint64_t* signs, std::size_t rows, std::size_t words, const std::uint64_t* a,
              std::uint64_t* differences) {
  const hn::ScalableTag<std::uint64_t> d;
  const std::size_t width = hn::Lanes(d);
  for (std::size_t r = 0; r < rows; ++r, signs += words) {
    auto sum = hn::Zero(d), more = hn::Zero(d);
    std::size_t w = 0;
    for (; w + 2 * width <= words; w += 2 * width) {
      sum = hn::Add(sum, hn::PopulationCount(hn::Xor(hn::LoadU(d, signs + w), hn::LoadU(d, a + w))));
      more = hn::Add(more, hn::PopulationCount(hn::Xor(hn::LoadU(d, signs + w + width), hn::LoadU(d, a + w + width))));
    }
    std::uint64_t count = hn::GetLane(hn::SumOfLanes(d, hn::Add(sum, more)));
    for (; w < words; ++w) count += static_cast<std::uint64_t>(std::popcount(signs[w] ^ a[w]));
    differences[r] = count;
  }
}

}  // namespace lmq::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lmq {
namespace {
HWY_EXPORT(sign_rows);
HWY_EXPORT(xor_rows);

constexpr std::size_t kRows = 64;  // rows whose sums are held at once

/// Sixteen lanes by halves.
float sum_lanes(const float* lane) noexcept {
  std::array<float, 16> sum;
  std::copy_n(lane, 16, sum.begin());
  for (std::size_t half = 8; half > 0; half /= 2)
    for (std::size_t i = 0; i < half; ++i) sum[i] = sum[i] + sum[i + half];
  return sum[0];
}

float sum_all(std::span<const float> x) noexcept {
  std::array<float, 16> lane{};
  for (std::size_t c = 0; c < x.size(); ++c) lane[c % 16] = lane[c % 16] + x[c];
  return sum_lanes(lane.data());
}

/// y[r] += scale * (2 * sum over set bits - sum of all).
void add_signs(float scale, float set, float all, float& y) noexcept {
  const float twice = 2 * set;
  const float product = scale * (twice - all);
  y = y + product;
}

void sign_rows_plain(const std::uint64_t* signs, std::size_t rows, std::size_t words, const float* x, float* lanes16) {
  for (std::size_t r = 0; r < rows; ++r, signs += words, lanes16 += 16) {
    std::fill_n(lanes16, 16, 0.0F);
    for (std::size_t c = 0; c < 64 * words; ++c)
      if ((signs[c / 64] >> c % 64 & 1) != 0) lanes16[c % 16] = lanes16[c % 16] + x[c];
  }
}

void xor_rows_plain(const std::uint64_t* signs, std::size_t rows, std::size_t words, const std::uint64_t* a,
                    std::uint64_t* differences) {
  for (std::size_t r = 0; r < rows; ++r, signs += words) {
    differences[r] = 0;
    for (std::size_t w = 0; w < words; ++w)
      differences[r] += static_cast<std::uint64_t>(std::popcount(signs[w] ^ a[w]));
  }
}

template <class SignRows>
void times_floats(const BitPlaneMatrix& w, std::span<const float> x, std::span<float> y, const SignRows& sign_sums) {
  const std::size_t words = plane_words(w.cols);
  std::vector<float> padded(64 * words, 0.0F);
  std::ranges::copy(x, padded.begin());
  const float all = sum_all(x);
  std::array<float, 16 * kRows> lanes;
  std::ranges::fill(y, 0.0F);
  for (std::size_t p = 0; p < w.planes; ++p)
    for (std::size_t first = 0; first < w.rows; first += kRows) {
      const std::size_t count = std::min(kRows, w.rows - first);
      sign_sums(w.signs.data() + (p * w.rows + first) * words, count, words, padded.data(), lanes.data());
      for (std::size_t r = 0; r < count; ++r)
        add_signs(w.scale[p * w.rows + first + r], sum_lanes(lanes.data() + 16 * r), all, y[first + r]);
    }
}

template <class XorRows>
void times_signs(const BitPlaneMatrix& w, const BitPlaneVector& a, std::span<float> y, const XorRows& differences_of) {
  const std::size_t words = plane_words(w.cols);
  std::array<std::uint64_t, kRows> differences;
  std::ranges::fill(y, 0.0F);
  for (std::size_t p = 0; p < w.planes; ++p)
    for (std::size_t first = 0; first < w.rows; first += kRows) {
      const std::size_t count = std::min(kRows, w.rows - first);
      for (std::size_t q = 0; q < a.planes; ++q) {
        differences_of(w.signs.data() + (p * w.rows + first) * words, count, words, a.signs.data() + q * words,
                       differences.data());
        for (std::size_t r = 0; r < count; ++r) {
          const auto equal =
              static_cast<float>(static_cast<std::int64_t>(w.cols) - 2 * static_cast<std::int64_t>(differences[r]));
          const float scale = w.scale[p * w.rows + first + r] * a.scale[q];
          const float product = scale * equal;
          y[first + r] = y[first + r] + product;
        }
      }
    }
}
}  // namespace

void bitplane_times(const BitPlaneMatrix& w, std::span<const float> x, std::span<float> y) noexcept {
  if (baseline_forced()) return reference::bitplane_times(w, x, y);
  times_floats(w, x, y, HWY_DYNAMIC_DISPATCH(sign_rows));
}

void bitplane_times(const BitPlaneMatrix& w, const BitPlaneVector& a, std::span<float> y) noexcept {
  if (baseline_forced()) return reference::bitplane_times(w, a, y);
  times_signs(w, a, y, HWY_DYNAMIC_DISPATCH(xor_rows));
}

void pack_signs(std::span<const std::uint8_t> codes, std::size_t rows, std::size_t cols, std::size_t planes,
                std::span<std::uint64_t> signs) noexcept {
  const std::size_t words = plane_words(cols);
  std::ranges::fill(signs, std::uint64_t{0});
  for (std::size_t p = 0; p < planes; ++p)
    for (std::size_t r = 0; r < rows; ++r)
      for (std::size_t c = 0; c < cols; ++c)
        signs[(p * rows + r) * words + c / 64] |=
            static_cast<std::uint64_t>(codes[r * cols + c] >> (planes - 1 - p) & 1) << c % 64;
}

namespace reference {
void bitplane_times(const BitPlaneMatrix& w, std::span<const float> x, std::span<float> y) noexcept {
  times_floats(w, x, y, sign_rows_plain);
}
void bitplane_times(const BitPlaneMatrix& w, const BitPlaneVector& a, std::span<float> y) noexcept {
  times_signs(w, a, y, xor_rows_plain);
}
}  // namespace reference

}  // namespace lmq
#endif
