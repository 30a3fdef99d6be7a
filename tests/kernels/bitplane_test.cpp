#include "lmq/kernels/bitplane.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <span>

#include "samples.hpp"

namespace {
struct Planes {
  std::vector<std::uint8_t> codes;
  std::vector<std::uint64_t> signs;
  std::vector<float> scale;
};
Planes planes(std::size_t rows, std::size_t cols, std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  Planes made;
  made.codes.resize(rows * cols);
  for (auto& code : made.codes) code = static_cast<std::uint8_t>(random() % (1U << count));
  made.signs.assign(count * rows * lmq::plane_words(cols), ~std::uint64_t{0});
  lmq::pack_signs(made.codes, rows, cols, count, made.signs);
  made.scale = samples::floats(count * rows, 0, seed + 1);
  return made;
}
double sign_of(const Planes& p, std::size_t weight, std::size_t plane, std::size_t count) {
  return (p.codes[weight] >> (count - 1 - plane) & 1) != 0 ? 1 : -1;
}
bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return std::ranges::equal(std::as_bytes(std::span(a)), std::as_bytes(std::span(b)));
}
}  // namespace

TEST_CASE("bit planes: products with floats equal the dense product, and both twins bit for bit", "[twin]") {
  const std::size_t rows = GENERATE(0u, 1u, 3u, 65u), cols = GENERATE(1u, 15u, 64u, 65u, 200u, 1000u);
  const std::size_t count = GENERATE(1u, 2u, 3u, 8u);
  CAPTURE(rows, cols, count);
  const Planes p = planes(rows, cols, count, static_cast<unsigned>(rows + cols));
  const auto x = samples::floats(cols, 0, 5);
  const lmq::BitPlaneMatrix w{rows, cols, count, p.signs, p.scale};
  std::vector<float> y(rows, 7), plain(rows, 9);
  lmq::bitplane_times(w, x, y);
  lmq::reference::bitplane_times(w, x, plain);
  REQUIRE(same_bits(y, plain));
  for (std::size_t r = 0; r < rows; ++r) {
    double sum = 0, size = 0;
    for (std::size_t c = 0; c < cols; ++c)
      for (std::size_t j = 0; j < count; ++j) {
        const double term = double{p.scale[j * rows + r]} * sign_of(p, r * cols + c, j, count) * x[c];
        sum += term, size += std::fabs(term);
      }
    REQUIRE(std::fabs(y[r] - sum) <= 1e-5 * size + 1e-30);
  }
}

TEST_CASE("bit planes: products with signs equal the dense product, and both twins bit for bit", "[twin]") {
  const std::size_t rows = GENERATE(1u, 3u, 65u), cols = GENERATE(1u, 63u, 64u, 200u, 1024u, 4097u);
  const std::size_t count = GENERATE(1u, 2u, 3u), of_vector = GENERATE(1u, 2u, 4u);
  CAPTURE(rows, cols, count, of_vector);
  const Planes p = planes(rows, cols, count, static_cast<unsigned>(rows + cols));
  const Planes v = planes(1, cols, of_vector, 77);
  const lmq::BitPlaneMatrix w{rows, cols, count, p.signs, p.scale};
  const lmq::BitPlaneVector a{cols, of_vector, v.signs, v.scale};
  std::vector<float> y(rows, 7), plain(rows, 9);
  lmq::bitplane_times(w, a, y);
  lmq::reference::bitplane_times(w, a, plain);
  REQUIRE(same_bits(y, plain));
  for (std::size_t r = 0; r < rows; ++r) {
    double sum = 0, size = 0;
    for (std::size_t j = 0; j < count; ++j)
      for (std::size_t q = 0; q < of_vector; ++q) {
        double equal = 0;
        for (std::size_t c = 0; c < cols; ++c)
          equal += sign_of(p, r * cols + c, j, count) * sign_of(v, c, q, of_vector);
        const double scale = double{p.scale[j * rows + r]} * v.scale[q];
        sum += scale * equal, size += std::fabs(scale * equal);
      }
    REQUIRE(std::fabs(y[r] - sum) <= 1e-5 * size + 1e-30);
  }
}
