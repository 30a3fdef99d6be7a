#include "lmq/kernels/assign.hpp"

#include <array>
#include <catch2/catch.hpp>
#include <limits>

#include "kernels/samples.hpp"
#include "lmq/kernels/keys.hpp"

using lmq::Code;
using lmq::DType;

namespace {
constexpr std::array kTypes{DType::bf16,    DType::f16,     DType::f32,         DType::f64,
                            DType::f8_e4m3, DType::f8_e5m2, DType::f8_e4m3fnuz, DType::f8_e5m2fnuz};

/// Sign of a sum of floats, exactly: an integer multiple of 2^-149 in signed 32-bit limbs.
int exact_sign(std::initializer_list<float> terms) {
  std::array<std::int64_t, 11> limbs{};
  for (const float term : terms) {
    const auto pattern = std::bit_cast<std::uint32_t>(term);
    const unsigned field = pattern >> 23 & 0xFF, shift = field > 0 ? field - 1 : 0;
    const std::uint64_t whole = (pattern & 0x7FFFFFu) | (field > 0 ? 0x800000u : 0u);
    const std::uint64_t placed = whole << (shift % 32);
    const std::int64_t sign = pattern >> 31 ? -1 : 1;
    limbs[shift / 32] += sign * static_cast<std::int64_t>(placed & 0xFFFFFFFFu);
    limbs[shift / 32 + 1] += sign * static_cast<std::int64_t>(placed >> 32);
  }
  bool zero = true;
  for (std::size_t i = 0; i + 1 < limbs.size(); ++i) {  // every limb but the last into 0 .. 2^32 - 1
    const std::int64_t carry = limbs[i] >> 32;
    limbs[i] -= carry * (std::int64_t{1} << 32);
    limbs[i + 1] += carry;
    zero = zero && limbs[i] == 0;
  }
  return limbs.back() < 0 ? -1 : limbs.back() > 0 || !zero ? 1 : 0;
}

/// First nearest of ascending levels in exact arithmetic.
Code nearest(const std::vector<float>& levels, float value) {
  std::size_t best = 0;
  for (std::size_t k = 1; k < levels.size(); ++k)
    if (levels[best] < levels[k] && exact_sign({value, value, -levels[best], -levels[k]}) > 0) best = k;
  return static_cast<Code>(best);
}

std::vector<float> widened(DType type, std::span<const std::byte> bytes) {
  std::vector<float> values(bytes.size() * 8 / lmq::bits(type));
  lmq::reference::widen(type, bytes, values);
  return values;
}

std::vector<Code> assigned(const std::vector<float>& levels, DType type, std::span<const std::byte> bytes,
                           std::size_t expected) {
  lmq::NearestLevel map;
  map.prepare(levels, type, expected);
  std::vector<Code> codes(bytes.size() * 8 / lmq::bits(type), Code{77}), plain(codes);
  map.assign(bytes, codes);
  map.assign_reference(bytes, plain);
  const auto [fast_at, plain_at] = std::ranges::mismatch(codes, plain);
  if (fast_at != codes.end())
    FAIL(lmq::name(type) << " weight " << fast_at - codes.begin() << " of " << codes.size() << ", " << levels.size()
                         << " levels: code " << int{*fast_at} << ", plainly " << int{*plain_at});
  return codes;
}
}  // namespace

TEST_CASE("a boundary is the smallest float strictly nearer to the upper level") {
  std::mt19937 random(5);
  auto values = samples::floats(3000, 2, 1);
  for (const float value : {0.0f, 0x1p-149f, -0x1p-149f, 3.4e38f, -3.4e38f, 1.0f, -1.0f, 1.5f}) values.push_back(value);
  for (int trial = 0; trial < 20000; ++trial) {
    float a = values[random() % values.size()], b = values[random() % values.size()];
    if (trial % 4 == 0) b = std::nextafter(a, 1e38f);
    if (trial % 4 == 1) b = a * (1 + 0x1p-20f);
    if (a > b) std::swap(a, b);
    if (!(a < b)) continue;
    const float boundary = lmq::level_boundary(a, b);
    REQUIRE(boundary > a);
    REQUIRE(boundary <= b);
    REQUIRE(nearest({a, b}, boundary) == 1);
    REQUIRE(nearest({a, b}, std::nextafter(boundary, -std::numeric_limits<float>::infinity())) == 0);
  }
  CHECK(lmq::level_boundary(-1.0f, 1.0f) == 0x1p-149f);  // 0 is a tie and goes down
  CHECK(lmq::level_boundary(0.0f, 0x1p-149f) == 0x1p-149f);
  CHECK(lmq::level_boundary(2.0f, 2.0f) == std::numeric_limits<float>::infinity());
}

TEST_CASE("every 16- and 8-bit pattern gets the nearest level, whichever way is taken") {
  for (const DType type :
       {DType::bf16, DType::f16, DType::f8_e4m3, DType::f8_e5m2, DType::f8_e4m3fnuz, DType::f8_e5m2fnuz}) {
    std::vector<std::byte> bytes;
    const std::size_t size = lmq::bits(type) / 8;
    for (std::size_t p = 0; p < std::size_t{1} << (8 * size); ++p) {
      if (!std::isfinite(lmq::widen_pattern(type, static_cast<std::uint16_t>(p)))) continue;
      for (std::size_t byte = 0; byte < size; ++byte) bytes.push_back(static_cast<std::byte>(p >> (8 * byte)));
    }
    const auto values = widened(type, bytes);
    for (const std::size_t count : {1, 2, 3, 16, 21, 22, 64}) {
      for (const int kind : {0, 1, 3}) {
        const auto levels = samples::levels(count, kind, static_cast<unsigned>(count), kind == 1);
        const auto codes = assigned(levels, type, bytes, 0);
        REQUIRE((assigned(levels, type, bytes, 1u << 20) == codes));
        for (std::size_t i = 0; i<values.size(); i += count> 16 ? 37 : 7)
          if (codes[i] != nearest(levels, values[i]))
            FAIL(lmq::name(type) << " " << values[i] << " of " << count << " levels");
      }
    }
  }
}

TEST_CASE("nearest level by brute force, every type, length and address") {
  for (const DType type : kTypes) {
    for (const std::size_t length : samples::kLengths) {
      for (const int kind : {0, 1, 2, 3, 4}) {
        if (kind == 2 && lmq::bits(type) == 64) continue;
        const auto bytes = samples::bytes(type, length, kind, 9);
        const auto values = widened(type, bytes);
        std::vector<std::byte> room;
        for (const std::size_t count : {2, 16, 255, 256}) {
          const auto levels = samples::levels(count, kind == 2 ? 0 : kind, 31, true);
          const auto codes = assigned(levels, type, bytes, length);
          REQUIRE((assigned(levels, type, samples::shifted(bytes, room), 1u << 20) == codes));
          for (std::size_t i = 0; i < length; i += 13) REQUIRE(codes[i] == nearest(levels, values[i]));
        }
      }
    }
  }
}

TEST_CASE("values beside each boundary fall on their sides in every type that holds them") {
  for (const std::size_t count : {2, 16, 21, 64, 256}) {
    const auto levels = samples::levels(count, 0, 77);
    std::vector<float> values;
    for (std::size_t k = 0; k + 1 < count; ++k) {
      const float boundary = lmq::level_boundary(levels[k], levels[k + 1]);
      values.push_back(boundary);
      values.push_back(std::nextafter(boundary, -1e30f));
      values.push_back(levels[k]);
    }
    for (const std::size_t expected : {std::size_t{1}, std::size_t{1} << 20}) {
      const auto codes = assigned(levels, DType::f32, std::as_bytes(std::span(values)), expected);
      for (std::size_t i = 0; i < values.size(); ++i) REQUIRE(codes[i] == nearest(levels, values[i]));
      for (std::size_t k = 0; k + 1 < count; ++k) REQUIRE(codes[3 * k] == k + 1);
    }
  }
}

TEST_CASE("both zeros are one value, and huge and subnormal levels serve") {
  const std::vector<float> zeros{0.0f, -0.0f};
  for (const auto& levels :
       {std::vector{-1.0f, 0.0f, 1.0f}, std::vector{-0x1p-149f, 0.0f, 0x1p-149f}, std::vector{-3e38f, 3e38f}}) {
    const auto codes = assigned(levels, DType::f32, std::as_bytes(std::span(zeros)), 1);
    CHECK(codes[0] == codes[1]);
    CHECK(codes[0] == nearest(levels, 0.0f));
    for (const DType type : {DType::bf16, DType::f16, DType::f8_e4m3}) {
      std::vector<std::byte> bytes(2 * lmq::bits(type) / 8);
      lmq::narrow_to(type, zeros, bytes);
      for (const std::size_t expected : {std::size_t{1}, std::size_t{1} << 20}) {
        const auto small = assigned(levels, type, bytes, expected);
        CHECK(small == codes);
      }
    }
  }
}
