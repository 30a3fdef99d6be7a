#include "lmq/kernels/stochastic.hpp"

#include <algorithm>
#include <bit>
#include <catch2/catch.hpp>
#include <cmath>

#include "kernels/samples.hpp"
#include "lmq/base/random.hpp"

using lmq::Code;
using lmq::DType;

TEST_CASE("stochastic: the mean of the draws is the weight, within five sigma") {
  const std::vector<float> levels{-1.0f, -0.25f, 0.0f, 2.0f, 8.0f};
  constexpr std::size_t kDraws = 1 << 16;
  for (const float weight : {-1.0f, -0.999f, -0.5f, -0.1f, 0.0f, 0.001f, 1.5f, 2.0f, 7.9f, 8.0f}) {
    const std::vector<float> weights(kDraws, weight);
    std::vector<Code> codes(kDraws);
    lmq::assign_stochastic(DType::f32, std::as_bytes(std::span(weights)), levels, lmq::draw_key(3, 4), 0, codes);
    double sum = 0, variance = 0;
    for (const Code code : codes) {
      REQUIRE(std::fabs(levels[code] - weight) <= 6.0f);
      if (code > 0 && levels[code] > weight) REQUIRE(levels[code - 1] <= weight);
      sum += levels[code];
      variance += (levels[code] - weight) * (levels[code] - weight);
    }
    const double sigma = std::sqrt(variance) / kDraws;
    CHECK(std::fabs(sum / kDraws - weight) <= 5 * sigma + 1e-12);
  }
}

TEST_CASE("stochastic: codes are a function of seed, tensor and element, not of the window") {
  const auto weights = samples::floats(999, 0, 8);
  const std::vector<float> levels{-0.05f, -0.01f, -0.01f, 0.0f, 0.02f, 0.06f};
  std::vector<Code> whole(weights.size()), parts(weights.size()), other(weights.size());
  const auto bytes = std::as_bytes(std::span(weights));
  lmq::assign_stochastic(DType::f32, bytes, levels, lmq::draw_key(1, 2), 50, whole);
  for (std::size_t begin = 0; begin < weights.size(); begin += 111)
    lmq::assign_stochastic(DType::f32, bytes.subspan(begin * 4, 444), levels, lmq::draw_key(1, 2), 50 + begin,
                           std::span(parts).subspan(begin, 111));
  CHECK(whole == parts);
  lmq::assign_stochastic(DType::f32, bytes, levels, lmq::draw_key(2, 2), 50, other);
  CHECK(whole != other);
  for (const Code code : whole) CHECK(code != 2);  // of equal levels the first
}

TEST_CASE("stochastic: the fast twin gives the plain loop's codes for every type, length, offset and level count",
          "[twin]") {
  for (const DType type : {DType::bf16, DType::f16, DType::f32, DType::f64, DType::f8_e4m3})
    for (const std::size_t count : {0, 1, 2, 7, 8, 9, 16, 17, 1023, 1025, 70001})
      for (const std::size_t levels : {1, 2, 3, 16, 21, 22, 100, 256})
        for (const std::uint64_t first : {std::uint64_t{0}, std::uint64_t{1}, (std::uint64_t{1} << 32) - 3}) {
          if (count > 2000 && (first > 1 || levels == 3 || levels == 22)) continue;
          const auto bytes = samples::bytes(type, count, count % 2 == 0 ? 0 : 1, 5);
          std::vector<std::byte> room;
          const auto odd = samples::shifted(bytes, room);
          lmq::StochasticLevel level;
          level.prepare(samples::levels(levels, 0, 7, true), type, lmq::draw_key(3, count), count);
          std::vector<Code> expected(count), actual(count);
          level.assign_reference(odd, first, expected);
          level.assign(odd, first, actual);
          CAPTURE(static_cast<int>(type), count, levels, first);
          REQUIRE(actual == expected);
        }
}

TEST_CASE("stochastic: every weight goes up in its share of all draws, to 2^-32 of them") {
  // Of the 2^32 draws those below the weight's place go up.
  const std::vector<float> levels{-0.07f, -0.01f, 0.013f, 0.5f};
  std::vector<std::uint16_t> patterns(65536);
  for (std::size_t p = 0; p < patterns.size(); ++p) patterns[p] = static_cast<std::uint16_t>(p);
  std::vector<float> values(patterns.size());
  lmq::widen(DType::bf16, std::as_bytes(std::span(patterns)), values);
  for (const float value : values) {
    if (!(value >= levels.front() && value < levels.back())) continue;
    const auto above = std::ranges::upper_bound(levels, value);
    const double share = (double{value} - above[-1]) / (double{*above} - above[-1]);
    const double draws = std::ceil((double{value} - above[-1]) * (0x1p32 / (double{*above} - above[-1])));
    REQUIRE(std::fabs(draws * 0x1p-32 - share) <= 0x1.0001p-32);
    if (value == above[-1]) REQUIRE(draws == 0);
  }
}

TEST_CASE("draws: bits, pairs and streams are even within five sigma") {
  constexpr std::size_t kDraws = 1 << 20;
  std::vector<std::size_t> ones(32), cells(65536), equal_bits(32);
  const std::uint64_t key = lmq::draw_key(1, 2), other = lmq::draw_key(2, 2), third = lmq::draw_key(1, 3);
  std::size_t agree_seed = 0, agree_tensor = 0;
  for (std::size_t i = 0; i < kDraws; ++i) {
    const std::uint32_t a = lmq::draw32(key, i), b = lmq::draw32(key, i + 1);
    for (std::size_t bit = 0; bit < 32; ++bit) ones[bit] += a >> bit & 1, equal_bits[bit] += (a ^ b) >> bit & 1;
    ++cells[(a >> 24) << 8 | b >> 24];
    agree_seed += static_cast<std::size_t>(std::popcount(a ^ lmq::draw32(other, i)));
    agree_tensor += static_cast<std::size_t>(std::popcount(a ^ lmq::draw32(third, i)));
  }
  const double half = kDraws / 2.0, sigma = std::sqrt(kDraws / 4.0);
  for (std::size_t bit = 0; bit < 32; ++bit) {
    CHECK(std::fabs(static_cast<double>(ones[bit]) - half) < 5 * sigma);
    CHECK(std::fabs(static_cast<double>(equal_bits[bit]) - half) < 5 * sigma);
  }
  double chi = 0;
  for (const std::size_t cell : cells) chi += (static_cast<double>(cell) - 16) * (static_cast<double>(cell) - 16) / 16;
  CHECK(std::fabs(chi - 65535) < 5 * std::sqrt(2 * 65535.0));
  for (const std::size_t agree : {agree_seed, agree_tensor})
    CHECK(std::fabs(static_cast<double>(agree) - 32 * half) < 5 * std::sqrt(32.0) * sigma);
}
