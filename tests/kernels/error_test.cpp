#include "lmq/kernels/error.hpp"

#include <array>
#include <catch2/catch.hpp>

#include "kernels/samples.hpp"

using lmq::Code;
using lmq::DType;

namespace {
bool same(const lmq::ErrorSums& a, const lmq::ErrorSums& b) {
  return a.squared == b.squared && a.weighted == b.weighted && a.energy == b.energy && a.largest == b.largest &&
         a.weighted_energy == b.weighted_energy;
}
}  // namespace

TEST_CASE("error sums have the reference's bits: every type, length, number of levels, with and without importance") {
  for (const DType type : {DType::bf16, DType::f16, DType::f32, DType::f64, DType::f8_e4m3, DType::f8_e5m2})
    for (const std::size_t length : samples::kLengths) {
      if (length > lmq::kErrorBlock) continue;
      for (const int kind : {0, 1, 3}) {
        const auto bytes = samples::bytes(type, length, kind, 8);
        std::vector<std::byte> room;
        auto importance = samples::floats(length, 0, 12);
        for (float& weight : importance) weight = std::fabs(weight);
        for (const std::size_t count : {1, 2, 5, 16, 17, 32, 33, 64, 65, 256}) {
          const lmq::LevelTable table(samples::levels(count, 0, 5));
          std::mt19937 random(2);
          std::vector<Code> codes(length);
          std::vector<float> decoded(length);
          for (std::size_t i = 0; i < length; ++i) {
            codes[i] = static_cast<Code>(random() % count);
            decoded[i] = table.levels[codes[i]];
          }
          for (const std::span<const float> weights : {std::span<const float>{}, std::span<const float>(importance)}) {
            const auto plain = lmq::reference::error_of_values(type, bytes, decoded, weights);
            REQUIRE(same(lmq::error_of_codes(type, bytes, codes, table, weights), plain));
            REQUIRE(same(lmq::error_of_codes(type, samples::shifted(bytes, room), codes, table, weights), plain));
            REQUIRE(same(lmq::error_of_values(type, bytes, decoded, weights), plain));
            if (weights.empty()) REQUIRE(plain.weighted == plain.squared);
          }
        }
      }
    }
}

TEST_CASE("error sums are what they say") {
  const std::vector<float> weights{1.0f, -2.0f, 3.0f}, decoded{1.5f, -2.0f, 1.0f}, importance{2.0f, 5.0f, 0.5f};
  const auto sums = lmq::error_of_values(DType::f32, std::as_bytes(std::span(weights)), decoded, importance);
  CHECK(sums.squared == 4.25);
  CHECK(sums.weighted == 2.5);
  CHECK(sums.energy == 14.0);
  CHECK(sums.largest == 2.0);
  CHECK(same(lmq::error_of_values(DType::f32, {}, {}, {}), lmq::ErrorSums{}));
}

TEST_CASE("huge and tiny errors neither overflow nor vanish") {
  const std::vector<float> weights{3e38f, -3e38f, 0x1p-149f}, decoded{-3e38f, 3e38f, 0.0f};
  const auto sums = lmq::error_of_values(DType::f32, std::as_bytes(std::span(weights)), decoded, {});
  CHECK(std::isfinite(sums.squared));
  CHECK(sums.largest == 2 * double{3e38f});
  const auto tiny =
      lmq::error_of_values(DType::f32, std::as_bytes(std::span(weights).subspan(2)), std::span(decoded).subspan(2), {});
  CHECK(tiny.squared == 0x1p-298);
}
