#include "lmq/quant/rate.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <numeric>

#include "lmq/quant/level_curve.hpp"
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

TEST_CASE("rate_of: stochastic rounding costs the mean over its draws") {
  const Group group = rate_samples::group_of({-1, 0.25f, 0.5f, 2}, {5, 4, 3, 6});
  const Codebook codebook = Codebook::table({-1, 1, 2});
  const RatePoint point = rate_of(group, codebook, RateCount::entropy, Rounding::stochastic);
  CHECK(point.distortion == Approx(4 * 1.25 * 0.75 + 3 * 1.5 * 0.5));
  CHECK(point.distortion >= 2 * rate_of(group, codebook).distortion);
}

TEST_CASE("condensed: counts, masses, means and energies stay, zeros stay apart, and what a bin hides is its scatter") {
  Group group = rate_samples::bf16_normal(14);
  const Group small = condensed(group, 256);
  const auto sum = [](const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); };
  CHECK(small.size() <= 259);
  CHECK(small.size() > 128);
  CHECK(sum(small.count) == sum(group.count));
  CHECK(sum(small.mass) == Approx(sum(group.mass)));
  CHECK(group_energy(small) == Approx(group_energy(group)).epsilon(1e-12));
  CHECK(std::ranges::is_sorted(small.mean));
  CHECK(small.low.front() == group.low.front());
  CHECK(small.high.back() == group.high.back());
  const Group zeros = condensed(rate_samples::group_of({-2, -1, 0, 1, 2}, {1, 1, 9, 1, 1}), 2);
  CHECK(std::ranges::count(zeros.mean, 0.0) == 1);
  CHECK(condensed(zeros, 64).size() == zeros.size());
}

TEST_CASE(
    "level_points: numbers of levels that are not tried lie between those that are; none has more than there are "
    "values") {
  const QuantizerEntry& entry = find_quantizer("asq");
  const Group group = rate_samples::bf16_normal(12);
  const auto curve = rate_curve(group, entry.id, default_options(entry, 16), {});
  CHECK(curve.front().levels == 2);
  CHECK(curve.back().levels == 256);
  for (std::size_t k = 1; k < curve.size(); ++k) {
    CAPTURE(curve[k].levels);
    CHECK(curve[k].levels > curve[k - 1].levels);
    CHECK(curve[k].bits > curve[k - 1].bits);
    CHECK(curve[k].distortion < curve[k - 1].distortion);
  }
  const Group few = rate_samples::group_of({-1, 0, 0.5f, 2, 3, 4, 5, 6, 7}, {5, 5, 6, 1, 1, 1, 1, 1, 1});
  CHECK(rate_curve(few, entry.id, default_options(entry, 16), {}).back().levels == 9);
}
