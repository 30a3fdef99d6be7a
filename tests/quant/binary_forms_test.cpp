// Losses of binary codes on densities whose closed forms are known.
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>

#include "binary_losses.hpp"
#include "partition_twin.hpp"

using namespace lmq;
using namespace lmq::binary_losses;

namespace {

/// A density as magnitudes: equal steps of y up to `end`, each with its exact mass by the midpoint rule.
Magnitudes density(double end, std::size_t steps, const std::function<double(double)>& f) {
  Magnitudes y;
  y.mass = {0}, y.sum = {0};
  for (std::size_t i = 0; i < steps; ++i) {
    const double at = (static_cast<double>(i) + 0.5) * end / static_cast<double>(steps), mass = f(at);
    y.point.push_back(at);
    y.mass.push_back(y.mass.back() + mass), y.sum.push_back(y.sum.back() + mass * at);
    y.energy += mass * at * at;
  }
  return y;
}

}  // namespace

TEST_CASE("binary: closed forms of normal, Laplace and uniform weights", "[constants]") {
  constexpr std::size_t kSteps = 2'000'000;
  const auto near = [](double value) { return Approx(value).margin(1e-5).epsilon(0); };
  const Magnitudes normal = density(9, kSteps, [](double y) { return std::exp(-y * y / 2); });
  CHECK(one_bit(normal) == near(std::sqrt(2 / M_PI)));
  CHECK(relative(normal, {one_bit(normal)}) == near(1 - 2 / M_PI));
  CHECK(two_loss(normal) == near(0.117482));
  CHECK(two_means(normal).low == near(0.45278));
  CHECK(two_means(normal).high == near(1.51042));
  CHECK(top_mean(normal) == near(1.22401));
  CHECK(ternary_loss(normal) == near(0.190174));
  std::vector<double> v;
  CHECK(greedy_loss(normal, 2) == near(0.130454));
  CHECK(greedy_loss(normal, 3) == near(0.058394));
  CHECK(greedy_loss(normal, 4, &v) == near(0.032898));
  CHECK(v[0] == near(0.797883));
  CHECK(v[1] == near(0.482625));
  CHECK(v[2] == near(0.268441));
  CHECK(v[3] == near(0.159674));
  const double degree = 180 / M_PI;
  CHECK(degree * std::asin(std::sqrt(relative(normal, {one_bit(normal)}))) == Approx(37.07).margin(0.01));
  CHECK(degree * std::asin(std::sqrt(ternary_loss(normal))) == Approx(25.86).margin(0.01));
  CHECK(degree * std::asin(std::sqrt(two_loss(normal))) == Approx(20.05).margin(0.01));
  const double rate = std::sqrt(2.0);
  const Magnitudes laplace = density(40, kSteps, [&](double y) { return std::exp(-rate * y); });
  CHECK(one_bit(laplace) == near(1 / rate));
  CHECK(relative(laplace, {one_bit(laplace)}) == near(0.5));
  CHECK(two_loss(laplace) == near(0.17620));
  CHECK((two_means(laplace).high + two_means(laplace).low) / 2 == near(1.12685).margin(2e-5));
  CHECK((two_means(laplace).high - two_means(laplace).low) / 2 == near(1 / rate).margin(2e-5));
  CHECK(top_mean(laplace) == near(rate).margin(3e-5));
  CHECK(ternary_loss(laplace) == near(1 - 2 / std::exp(1.0)));
  CHECK(greedy_loss(laplace, 2) == near(0.229331));
  CHECK(greedy_loss(laplace, 3) == near(0.142556));
  CHECK(greedy_loss(laplace, 4) == near(0.095121));
  const Magnitudes uniform = density(1, kSteps, [](double) { return 1.0; });
  CHECK(relative(uniform, {one_bit(uniform)}) == near(0.25));
  CHECK(two_loss(uniform) == near(1.0 / 16));
  CHECK(ternary_loss(uniform) == near(1.0 / 9));
  CHECK(top_mean(uniform) == near(2.0 / 3));
  CHECK(greedy_loss(uniform, 2) == near(1.0 / 16));
}

TEST_CASE("binary: closed forms on ten million samples", "[constants][slow]") {
  const auto x = twin::draw(twin::Source::normal, 10'000'000, 5);
  MagnitudeScratch scratch;
  const Magnitudes& y = sorted_magnitudes(x, {}, scratch);
  const auto near = [](double value) { return Approx(value).margin(1e-3).epsilon(0); };
  CHECK(one_bit(y) / std::sqrt(y.energy / y.mass.back()) == near(0.797885));
  CHECK(relative(y, {one_bit(y)}) == near(0.363380));
  CHECK(two_loss(y) == near(0.117482));
  CHECK(ternary_loss(y) == near(0.190174));
  CHECK(greedy_loss(y, 2) == near(0.130454));
  CHECK(greedy_loss(y, 3) == near(0.058394));
  CHECK(greedy_loss(y, 4) == near(0.032898));
}
