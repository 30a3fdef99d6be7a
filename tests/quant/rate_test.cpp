#include "lmq/quant/rate.hpp"

#include <catch2/catch.hpp>
#include <cmath>

#include "rate_samples.hpp"

using namespace lmq;

namespace {
std::vector<double> slopes(const Group& group, std::size_t count, double first, double last) {
  const double unit = rate_of(group, Codebook::table({0.0f})).distortion;
  double all = 0;
  for (const double n : group.count) all += n;
  std::vector<double> lambdas;
  for (std::size_t k = 0; k < count; ++k)
    lambdas.push_back(unit / all * first *
                      std::pow(last / first, static_cast<double>(k) / static_cast<double>(count - 1)));
  return lambdas;
}
}  // namespace

TEST_CASE("rate_curve: points are real, monotone, and what fit_at finds at the same slope is hardly cheaper") {
  const Group group = rate_samples::bf16_normal(20);
  const auto lambdas = slopes(group, 7, 1.0, 1e-3);
  for (const char* name : {"ecsq", "ecsq-iter", "ecsq-uniform"}) {
    const QuantizerEntry& entry = find_quantizer(name);
    const QuantizerOptions options = default_options(entry, 16);
    const auto curve = rate_curve(group, entry.id, options, lambdas);
    REQUIRE(curve.size() == lambdas.size());
    for (std::size_t k = 0; k < curve.size(); ++k) {
      CAPTURE(name, k);
      const RateFit fit = fit_at(group, entry.id, options, lambdas[k]);
      const RatePoint real = rate_of(group, fit.codebook);
      const double price = curve[k].distortion + lambdas[k] * curve[k].bits;
      CHECK(curve[k].lambda == lambdas[k]);
      CHECK(fit.point.bits == Approx(real.bits).margin(1e-6));
      CHECK(fit.point.distortion == Approx(real.distortion).epsilon(1e-6));  // levels are floats
      CHECK(fit.point.levels == real.levels);
      CHECK(fit.point.distortion + lambdas[k] * fit.point.bits <= price * (1 + 1e-12));
      CHECK(price <= (fit.point.distortion + lambdas[k] * fit.point.bits) * (1 + 1e-4));
      const Fit again = entry.make(fit.options)->fit(group);
      CHECK(std::ranges::equal(again.codebook.levels(), fit.codebook.levels()));
      CHECK(std::ranges::equal(again.codebook.cuts(), fit.codebook.cuts()));
      if (k > 0) CHECK(curve[k].bits >= curve[k - 1].bits * (1 - 1e-3));
      if (k > 0) CHECK(curve[k].distortion <= curve[k - 1].distortion * (1 + 1e-3));
    }
  }
}

TEST_CASE("rate_curve: methods with numbers of levels have a point for each, by entropy or fixed width") {
  const Group group = rate_samples::bf16_normal(14);
  double all = 0;
  for (const double n : group.count) all += n;
  for (const char* name : {"kmeans", "uniform"}) {
    const QuantizerEntry& entry = find_quantizer(name);
    const auto fixed = rate_curve(group, entry.id, default_options(entry, 16), {}, RateCount::fixed_width);
    REQUIRE(fixed.size() == 8);
    for (std::size_t k = 0; k < 8; ++k) {
      CHECK(fixed[k].bits == all * static_cast<double>(k + 1));
      CHECK(fixed[k].levels == std::size_t{2} << k);
      if (k > 0) CHECK(fixed[k].distortion < fixed[k - 1].distortion);
    }
    const auto coded = rate_curve(group, entry.id, default_options(entry, 16), {});
    CHECK(coded.size() > 30);
    CHECK(coded.back().levels == 256);
    const double lambda = (fixed[1].distortion - fixed[4].distortion) / (3 * all);
    const RateFit fit = fit_at(group, entry.id, default_options(entry, 16), lambda);
    for (const RatePoint& point : coded)
      CHECK(fit.point.distortion + lambda * fit.point.bits <= point.distortion + lambda * point.bits);
    const RateFit by_width = fit_at(group, entry.id, default_options(entry, 16), lambda, RateCount::fixed_width);
    for (const RatePoint& point : fixed)
      CHECK(by_width.point.distortion + lambda * by_width.point.bits <= point.distortion + lambda * point.bits);
  }
  const Group few = rate_samples::group_of({-1, 0.5f, 2}, {5, 5, 6});
  const auto curve = rate_curve(few, find_quantizer("kmeans").id, default_options(find_quantizer("kmeans"), 16), {});
  REQUIRE(curve.back().levels == 3);
  REQUIRE(curve.back().distortion == 0);
}
