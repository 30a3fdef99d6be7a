#include "lmq/kernels/product.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

using namespace lmq;

namespace {
template <class Number>
std::vector<Number> normal(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> draw;
  std::vector<Number> made(count);
  for (Number& x : made) x = static_cast<Number>(draw(random));
  return made;
}

template <class Number>
Strided<const Number> whole(const std::vector<Number>& from, std::size_t cols) {
  return {from.data(), static_cast<std::ptrdiff_t>(cols), 1};
}

template <class Number>
bool same_bits(const std::vector<Number>& a, const std::vector<Number>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(Number)) == 0);
}

template <class Number>
void equals_plain(const ProductShape& shape) {
  const auto a = normal<Number>(shape.rows * shape.depth, 1), b = normal<Number>(shape.depth * shape.cols, 2);
  auto expected = normal<Number>(shape.rows * shape.cols, 3), actual = expected;
  const auto step = static_cast<std::ptrdiff_t>(shape.cols);
  add_product_reference(shape, whole(a, shape.depth), whole(b, shape.cols), {expected.data(), step, 1});
  add_product(shape, whole(a, shape.depth), whole(b, shape.cols), {actual.data(), step, 1});
  CAPTURE(shape.rows, shape.depth, shape.cols);
  REQUIRE(same_bits(actual, expected));
}
}  // namespace

TEST_CASE("product: the vector loops give the bits of the plain chain for every shape", "[product][twin]") {
  for (const std::size_t rows : {0u, 1u, 5u, 6u, 7u, 25u, 31u})
    for (const std::size_t depth : {0u, 1u, 2u, 255u, 256u, 257u, 300u})
      for (const std::size_t cols : {0u, 1u, 15u, 16u, 17u, 32u, 33u, 70u}) {
        equals_plain<float>({rows, depth, cols});
        equals_plain<double>({rows, depth, cols});
      }
}

TEST_CASE("product: cut in rows, columns and depth it gives the same bits", "[product]") {
  constexpr std::size_t kRows = 40, kDepth = 290, kCols = 75;
  const auto a = normal<float>(kRows * kDepth, 4), b = normal<float>(kDepth * kCols, 5);
  auto expected = normal<float>(kRows * kCols, 6), actual = expected;
  add_product({kRows, kDepth, kCols}, whole(a, kDepth), whole(b, kCols), {expected.data(), kCols, 1});
  for (std::size_t k = 0; k < kDepth; k += 37)
    for (std::size_t i = 0; i < kRows; i += 11)
      for (std::size_t j = 0; j < kCols; j += 19)
        add_product({std::min<std::size_t>(11, kRows - i), std::min<std::size_t>(37, kDepth - k),
                     std::min<std::size_t>(19, kCols - j)},
                    {a.data() + i * kDepth + k, kDepth, 1}, {b.data() + k * kCols + j, kCols, 1},
                    {actual.data() + i * kCols + j, kCols, 1});
  REQUIRE(same_bits(actual, expected));
}

TEST_CASE("product: steps may be negative, and a may be transposed", "[product]") {
  constexpr std::size_t kRows = 9, kDepth = 50, kCols = 33;
  const auto a = normal<float>(kRows * kDepth, 7), b = normal<float>(kDepth * kCols, 8);
  std::vector<float> expected(kRows * kCols, 0), actual = expected;
  // depth from the last to the first; a is stored [depth][rows]
  const Strided<const float> left{a.data() + (kDepth - 1) * kRows, 1, -static_cast<std::ptrdiff_t>(kRows)};
  const Strided<const float> right{b.data() + (kDepth - 1) * kCols, -static_cast<std::ptrdiff_t>(kCols), 1};
  add_product({kRows, kDepth, kCols}, left, right, {actual.data(), kCols, 1});
  for (std::size_t i = 0; i < kRows; ++i)
    for (std::size_t j = 0; j < kCols; ++j)
      for (std::size_t k = kDepth; k-- > 0;)
        expected[i * kCols + j] = std::fma(a[k * kRows + i], b[k * kCols + j], expected[i * kCols + j]);
  REQUIRE(same_bits(actual, expected));
}

TEST_CASE("product: one scaled row is added by fused multiply-adds at any length", "[product][twin]") {
  for (const std::size_t count : {0u, 1u, 7u, 16u, 17u, 100u}) {
    const auto values = normal<float>(count, 9);
    auto expected = normal<float>(count, 10), actual = expected;
    for (std::size_t i = 0; i < count; ++i) expected[i] = std::fma(0.7F, values[i], expected[i]);
    add_scaled(0.7F, values.data(), actual.data(), count);
    REQUIRE(same_bits(actual, expected));
  }
}

TEST_CASE("product: rows times rows are added by fused multiply-adds at any length, upwards and downwards",
          "[product][twin]") {
  for (const std::size_t count : {0u, 1u, 15u, 16u, 63u, 64u, 65u, 150u})
    for (const std::size_t depth : {0u, 1u, 37u}) {
      const auto a = normal<float>(count * (depth + 1), 11), b = normal<float>((count + 3) * (depth + 1), 12);
      auto expected = normal<float>(count, 13), actual = expected;
      const auto step = static_cast<std::ptrdiff_t>(count);
      for (std::size_t i = 0; i < count; ++i)
        for (std::size_t k = 0; k < depth; ++k)
          expected[i] = std::fma(a[(depth - k) * count + i], b[k * (count + 3) + i], expected[i]);
      add_products(depth, count, {a.data() + depth * count, -step, 1}, {b.data(), step + 3, 1}, actual.data());
      CAPTURE(count, depth);
      REQUIRE(same_bits(actual, expected));
    }
}
