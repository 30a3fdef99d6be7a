#include "lmq/io/scaled_levels.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <random>
#include <vector>

#include "lmq/kernels/widen.hpp"

using namespace lmq;

namespace {

/// Least squared error over all scales of the type that put the largest magnitude within the levels' range, by trying them.
double by_trial(const ScaledLevels& levels, DType type, const std::vector<float>& values) {
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::abs(value));
  double best = 1e300;
  for (std::uint32_t pattern = 0; pattern < 0x10000; ++pattern) {
    const float scale = widen_pattern(type, static_cast<std::uint16_t>(pattern));
    const double ratio = double{largest} / std::abs(double{scale});
    if (!std::isfinite(scale) || !(ratio >= levels.low && ratio <= levels.high)) continue;
    double error = 0;
    for (const float value : values) {
      double least = 1e300;
      for (const int level : levels.values) {
        const double e = double{value} - double{scale * static_cast<float>(level)};
        least = std::min(least, e * e);
      }
      error += least;
    }
    best = std::min(best, error);
  }
  return best;
}

double error_of(const ScaledLevels& levels, float scale, const std::vector<float>& values,
                const std::vector<std::uint8_t>& codes) {
  double error = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double e = double{values[i]} - double{scale * static_cast<float>(levels.values.at(codes[i]))};
    error += e * e;
  }
  return error;
}

}  // namespace

TEST_CASE("best_scale: no stored scale tried one by one is better by more than its rounding", "[scaled_levels]") {
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0, 0.05F);
  for (const int width : {2, 3, 4, 8})
    for (const DType type : {DType::f16, DType::bf16})
      for (const std::size_t size : {1, 2, 7, 33}) {
        std::vector<float> values(size);
        for (float& value : values) value = normal(random);
        std::vector<std::uint8_t> codes(size);
        const FoundScale found = best_scale(signed_levels(width), type, values, codes);
        CAPTURE(width, int(type), size);
        CHECK(found.error == error_of(signed_levels(width), found.scale, values, codes));
        double energy = 0;
        for (const float value : values) energy += double{value} * double{value};
        // a stored scale is off by 2^-11 or 2^-8 of itself at most
        const double step = type == DType::f16 ? 0x1p-22 : 0x1p-16;
        CHECK(found.error <= by_trial(signed_levels(width), type, values) * 1.01 + energy * step);
      }
}

TEST_CASE("best_scale: zeros, tiny and huge values give finite scales and codes of zero error or near",
          "[scaled_levels]") {
  for (const float value : {0.0F, -0.0F, 1e-30F, 1e30F, -3e38F}) {
    const std::vector<float> values(5, value);
    std::vector<std::uint8_t> codes(5);
    const FoundScale found = best_scale(signed_levels(4), DType::f16, values, codes);
    CHECK(std::isfinite(found.scale));
    CHECK(found.error <= 5 * double{value} * double{value});
  }
}

TEST_CASE("exact_scale: values on a grid are found to be, one bit beside it they are not", "[scaled_levels]") {
  std::mt19937 random(6);
  for (const int width : {2, 3, 4, 8})
    for (const DType type : {DType::f16, DType::bf16, DType::f32})
      for (const std::size_t size : {1, 3, 64}) {
        const ScaledLevels& levels = signed_levels(width);
        float scale = -0.01F;
        std::vector<std::byte> stored(bits(type) / 8);
        narrow_to(type, {&scale, 1}, stored);
        widen(type, stored, {&scale, 1});
        std::vector<float> values(size);
        for (float& value : values) value = scale * static_cast<float>(levels.values[random() % levels.values.size()]);
        std::vector<std::uint8_t> codes(size);
        float found = 0;
        CAPTURE(width, int(type), size);
        REQUIRE(exact_scale(levels, type, values, codes, found));
        CHECK(error_of(levels, found, values, codes) == 0);
        if (size == 64) {
          values[40] = std::nextafter(scale * static_cast<float>(levels.values[0]), 1.0F);
          CHECK_FALSE(exact_scale(levels, type, values, codes, found));
        }
      }
}

TEST_CASE("exact_scale: zeros are on every grid", "[scaled_levels]") {
  const std::vector<float> values(4, 0.0F);
  std::vector<std::uint8_t> codes(4);
  float scale = 1;
  REQUIRE(exact_scale(signed_levels(4), DType::f16, values, codes, scale));
  CHECK(scale == 0);
  CHECK(codes == std::vector<std::uint8_t>(4, 8));
}
