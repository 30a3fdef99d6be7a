#include "lmq/kernels/stochastic.hpp"

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
