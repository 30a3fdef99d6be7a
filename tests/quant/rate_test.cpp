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

TEST_CASE("rate_curve: points are real, monotone, and what the method fits at the same slope is hardly cheaper") {
  const Group group = rate_samples::bf16_normal(20);
  const auto lambdas = slopes(group, 7, 1.0, 1e-3);
  for (const char* name : {"ecsq", "ecsq-iter", "ecsq-uniform"}) {
    const QuantizerEntry& entry = find_quantizer(name);
    const QuantizerOptions options = default_options(entry, 16);
    const auto curve = rate_curve(group, entry.id, options, lambdas);
    REQUIRE(curve.size() == lambdas.size());
    for (std::size_t k = 0; k < curve.size(); ++k) {
      CAPTURE(name, k);
      QuantizerOptions at_slope = options;
      entry.at_slope(at_slope, lambdas[k]);
      const RatePoint fit = rate_of(group, entry.make(at_slope)->fit(group).codebook);
      const double price = curve[k].distortion + lambdas[k] * curve[k].bits;
      CHECK(curve[k].lambda == lambdas[k]);
      const double best = fit.distortion + lambdas[k] * fit.bits;
      CHECK(best <= price * (1 + 1e-6));  // levels are floats
      CHECK(price <= best * (1 + 1e-4));
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
  }
  const Group few = rate_samples::group_of({-1, 0.5f, 2}, {5, 5, 6});
  const auto curve = rate_curve(few, find_quantizer("kmeans").id, default_options(find_quantizer("kmeans"), 16), {});
  REQUIRE(curve.back().levels == 3);
  REQUIRE(curve.back().distortion == 0);
}
