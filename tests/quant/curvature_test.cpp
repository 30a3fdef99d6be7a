#include <catch2/catch.hpp>
#include <cmath>
#include <string>
#include <vector>

#include "lmq/base/error.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/quant/curvature_factor.hpp"
#include "matrix_samples.hpp"

using namespace lmq;
using samples::covariance;
using samples::same_bits;

TEST_CASE("curvature: in panels and on any threads the factor has the bits of the plain loop", "[matrix][twin]") {
  for (const std::size_t size : {0u, 1u, 2u, 63u, 64u, 65u, 130u, 200u}) {
    const auto matrix = covariance(size, size + 3, static_cast<unsigned>(size));
    const double mean = mean_diagonal(matrix, size);
    const CurvatureFactor plain = factor_curvature_reference(matrix, size, 0.003, mean, "x");
    for (const std::size_t threads : {1u, 3u}) {
      set_thread_count(threads);
      const CurvatureFactor panels = factor_curvature(matrix, size, 0.003, mean, "x");
      set_thread_count(0);
      CAPTURE(size, threads);
      REQUIRE(same_bits(panels.unit, plain.unit));
      REQUIRE(same_bits(panels.pivot, plain.pivot));
    }
  }
}

TEST_CASE("curvature: the factor times its transpose is the damped matrix", "[matrix]") {
  constexpr std::size_t kSize = 90;
  const auto matrix = covariance(kSize, 30, 4);  // rank 30: the damping alone makes it definite
  const CurvatureFactor factor = factor_curvature(matrix, kSize, 0.01, mean_diagonal(matrix, kSize), "x");
  REQUIRE(factor.raised == 0);
  REQUIRE(factor.floored > 20);  // 60 directions without data; those before a pivot take their share of the floor
  for (const double pivot : factor.pivot) REQUIRE(pivot * pivot >= factor.damping * (1 - 1e-9));
  for (std::size_t i = 0; i < kSize; ++i)
    for (std::size_t j = 0; j <= i; ++j) {
      double sum = 0;
      for (std::size_t k = 0; k <= j; ++k)
        sum += double{factor.unit[i * kSize + k]} * factor.unit[j * kSize + k] * factor.pivot[k] * factor.pivot[k];
      REQUIRE(sum == Approx(matrix[i * kSize + j] + (i == j ? factor.damping : 0.0)).margin(1e-5));
    }
}

TEST_CASE("curvature: what is no curvature is refused with its place", "[matrix]") {
  const auto refused = [](std::vector<double> matrix, const char* words) {
    try {
      (void)factor_curvature(matrix, 2, 0.01, 1, "layer 3");
    } catch (const Error& error) {
      REQUIRE(error.code == Errc::malformed);
      REQUIRE(std::string(error.what()).starts_with("layer 3: "));
      REQUIRE(std::string(error.what()).find(words) != std::string::npos);
      return;
    }
    FAIL("not refused: " << words);
  };
  refused({1, 2, 3}, "expected 2 x 2");
  refused({1, 0, std::nan(""), 1}, "(1, 0) is not finite");
  refused({1, 0.5, 0.4, 1}, "not symmetric");
  refused({1, 0, 0, -1}, "diagonal element 1 is -1");
  refused({1, -1e9, -1e9, 1}, "not positive definite");
}

TEST_CASE("curvature: zero counts as the identity, dead inputs get the damping, damping grows where it must",
          "[matrix]") {
  const CurvatureFactor zero = factor_curvature(std::vector<double>(9, 0.0), 3, 0.01, 0, "x");
  REQUIRE(zero.is_identity);
  REQUIRE(zero.pivot == std::vector<double>(3, 1.0));
  const CurvatureFactor dead = factor_curvature(std::vector<double>{4, 0, 0, 0}, 2, 0.003, 2, "x");
  REQUIRE(dead.pivot[1] == Approx(std::sqrt(0.006)));
  const CurvatureFactor raised = factor_curvature(std::vector<double>{1, 1.05, 1.05, 1}, 2, 0.003, 1, "x");
  REQUIRE(raised.raised == 2);  // .003 and .03 are too little for an eigenvalue of -.05
}

TEST_CASE("curvature: the gain of feedback is what correlation is worth", "[matrix]") {
  const std::vector<double> matrix{1, 0.6, 0.6, 1}, diagonal{3, 0, 0, 5};
  REQUIRE(feedback_gain(factor_curvature(matrix, 2, 0, 1, "x"), matrix) ==
          Approx(-0.25 * std::log2(1 - 0.36)).epsilon(1e-9));
  REQUIRE(feedback_gain(factor_curvature(diagonal, 2, 0, 1, "x"), diagonal) == Approx(0).margin(1e-12));
}

TEST_CASE("curvature: a factor of the matrix times four has the pivots twice and the same ratios", "[matrix]") {
  auto matrix = covariance(70, 90, 8);
  const CurvatureFactor once = factor_curvature(matrix, 70, 0.01, mean_diagonal(matrix, 70), "x");
  for (double& x : matrix) x *= 4;
  const CurvatureFactor four = factor_curvature(matrix, 70, 0.01, mean_diagonal(matrix, 70), "x");
  REQUIRE(same_bits(four.unit, once.unit));
  for (std::size_t k = 0; k < 70; ++k) REQUIRE(four.pivot[k] == 2 * once.pivot[k]);
}

TEST_CASE("curvature: the gain of noise is the pivot's square times the diagonal of the inverse", "[matrix]") {
  for (const std::size_t size : {1u, 2u, 64u, 65u, 150u}) {
    const auto matrix = covariance(size, size + 20, static_cast<unsigned>(size));
    const CurvatureFactor factor = factor_curvature(matrix, size, 0.01, mean_diagonal(matrix, size), "x");
    const std::vector<double> gain = noise_gain(factor);
    REQUIRE(gain.size() == size);
    REQUIRE(gain.back() == Approx(1));  // nothing comes after the last
    for (const std::size_t j : {std::size_t{0}, size / 2}) {
      std::vector<double> x(size, 0.0);  // B'^-1 e_j, then its squares by pivots
      double sum = 0;
      for (std::size_t i = j; i < size; ++i) {
        x[i] = i == j ? 1 : 0;
        for (std::size_t k = j; k < i; ++k) x[i] -= factor.unit[i * size + k] * x[k];
        sum += x[i] * x[i] / (factor.pivot[i] * factor.pivot[i]);
      }
      CAPTURE(size, j);
      REQUIRE(gain[j] == Approx(sum * factor.pivot[j] * factor.pivot[j]).epsilon(1e-4));
    }
  }
}
