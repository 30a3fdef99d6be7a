#include <algorithm>
#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "lmq/base/quantized_unit.hpp"
#include "units.hpp"

using namespace lmq;

TEST_CASE("half: every finite half times every power of two is exact and comes back", "[levels]") {
  const int exponent = GENERATE(-125, -30, -15, -1, 0, 7, 112);  // the least and the most
  CAPTURE(exponent);
  int wrong = 0;
  for (std::uint32_t half = 0; half < 0x10000; ++half) {
    if ((half & 0x7C00) == 0x7C00) continue;
    const float value = from_scaled_half(static_cast<std::uint16_t>(half), exponent);
    const int power = static_cast<int>(half >> 10 & 31);
    const double fraction = (half & 0x3FF) * 0x1p-10 + (power > 0 ? 1 : 0);
    const double expected = std::ldexp(half & 0x8000 ? -fraction : fraction, std::max(power, 1) - 15 + exponent);
    wrong += static_cast<double>(value) != expected || std::signbit(value) != (half >= 0x8000);
    wrong += to_scaled_half(value, exponent) != half;
  }
  REQUIRE(wrong == 0);
}

TEST_CASE("half: a float between two halves goes to the nearer, ties to the even one", "[levels]") {
  int wrong = 0;
  for (std::uint16_t half = 0; half < 0x7BFF; ++half) {
    const float low = from_scaled_half(half, 0), high = from_scaled_half(static_cast<std::uint16_t>(half + 1), 0);
    const float middle = static_cast<float>((static_cast<double>(low) + static_cast<double>(high)) / 2);
    wrong += to_scaled_half(std::nextafter(middle, 0.0F), 0) != half;
    wrong += to_scaled_half(std::nextafter(middle, 1e9F), 0) != half + 1;
    wrong += to_scaled_half(middle, 0) != half + (half & 1);
  }
  REQUIRE(wrong == 0);
}

TEST_CASE("round_levels keeps order and is idempotent, with 11 bits for all within 2^-29 of the largest", "[levels]") {
  const int scale = GENERATE(-149, -140, -126, -120, -60, -3, 0, 20, 100, 127);
  CAPTURE(scale);
  Random random{static_cast<std::uint64_t>(scale + 1000)};
  std::vector<float> book;
  for (int i = 0; i < 500; ++i) {
    const double value = (double(random.below(1ULL << 24)) * 0x1p-23 - 1) * std::exp2(-double(random.below(24)));
    book.push_back(static_cast<float>(std::ldexp(value, scale)));
  }
  if (scale == 127) book.push_back(std::numeric_limits<float>::max());
  std::ranges::sort(book);
  auto rounded = book;
  round_levels(rounded, LevelType::f16);
  REQUIRE(std::ranges::is_sorted(rounded));
  REQUIRE(std::ranges::all_of(rounded, [](float x) { return std::isfinite(x); }));
  auto again = rounded;
  round_levels(again, LevelType::f16);
  REQUIRE(again == rounded);
  for (std::size_t i = 0; i < book.size(); ++i)
    if (book[i] < 6.5e4 * std::ldexp(1.0, 112) && std::abs(book[i]) > std::ldexp(1.0, scale - 28))
      REQUIRE(std::abs(double(rounded[i]) - double(book[i])) <= std::abs(double(book[i])) * 0x1p-11 + 0x1p-150);
}

TEST_CASE("round_levels leaves f32 alone and zeros zero", "[levels]") {
  std::vector<float> book{-1.1F, 0.1F, 0.3F}, zeros{0, 0};
  const auto before = book;
  round_levels(book, LevelType::f32);
  REQUIRE(book == before);
  round_levels(zeros, LevelType::f16);
  REQUIRE(zeros == std::vector<float>{0, 0});
  round_levels({}, LevelType::f16);
  REQUIRE(half_exponent(zeros) == 0);
}

TEST_CASE("codebooks: one, or one per group of a row, the last group of a row shorter", "[levels]") {
  QuantizedUnit unit;
  unit.count = 60;
  unit.cols = 10;
  REQUIRE(unit.codebooks() == 1);
  unit.group = 4;
  REQUIRE(unit.codebooks() == 18);
  unit.group = 10;
  REQUIRE(unit.codebooks() == 6);
  unit.group = 100;
  REQUIRE(unit.codebooks() == 6);
}
