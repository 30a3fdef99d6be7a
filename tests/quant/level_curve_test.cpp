#include "lmq/quant/level_curve.hpp"

#include <catch2/catch.hpp>
#include <numeric>

#include "partition_twin.hpp"

using namespace lmq;

namespace {

Group group_of(const twin::Distinct& d) {
  Group g;
  for (std::size_t k = 0; k < d.values.size(); ++k) {
    g.low.push_back(static_cast<float>(d.values[k])), g.high.push_back(g.low.back());
    g.count.push_back(1 + static_cast<double>(k % 3)), g.mass.push_back(d.weights[k]), g.mean.push_back(d.values[k]);
    g.scatter.push_back(0);
  }
  g.minimum = g.low.front(), g.maximum = g.high.back();
  return g;
}

std::vector<std::size_t> counts_to(std::size_t most) {
  std::vector<std::size_t> counts(most - 1);
  std::iota(counts.begin(), counts.end(), std::size_t{2});
  return counts;
}

}  // namespace

TEST_CASE("level_curve: one pass over all numbers of levels gives what single fits give, for every method",
          "[quant][sls]") {
  const Group group = group_of(twin::distinct(twin::draw(twin::Source::laplace, 200, 3), twin::random_weights(200, 4)));
  const double energy = group_energy(group);
  for (const QuantizerEntry& entry : quantizers()) {
    const auto wanted = counts_to(entry.all ? 256 : 9);
    const auto curve = level_curve(group, entry, {}, wanted);
    for (const LevelPoint& point : curve) {
      if (point.wanted % 7 != 2) continue;
      const auto quantizer = entry.make(default_options(entry, point.wanted));
      const LevelPoint single = measure_codebook(group, quantizer->fit(group).codebook, quantizer->traits().rounding);
      CAPTURE(entry.name, point.wanted);
      CHECK(point.levels == single.levels);
      CHECK(point.squared_error == Approx(single.squared_error).epsilon(1e-6).margin(1e-12 * energy));
      CHECK(point.entropy_bits <= std::log2(static_cast<double>(point.levels)) + 1e-12);
    }
    if (entry.all) REQUIRE(curve.size() == wanted.size());
  }
}

TEST_CASE("level_curve: no method is below the exact partition; its curve falls to nothing", "[quant][sls]") {
  const Group group = group_of(twin::distinct(twin::draw(twin::Source::normal, 300, 5)));
  const auto wanted = counts_to(256);
  const auto best = level_curve(group, find_quantizer("kmeans"), {}, wanted);
  const double energy = group_energy(group);
  for (const auto name : {"uniform", "sls-l1", "sls-l1l2", "sls-l0", "sls-iter", "sls-cluster"}) {
    const auto curve = level_curve(group, find_quantizer(name), {}, wanted);
    REQUIRE(curve.size() == best.size());
    for (std::size_t k = 0; k < curve.size(); ++k)
      REQUIRE(curve[k].squared_error >= best[k].squared_error * (1 - 1e-6) - 1e-13 * energy);
  }
  for (std::size_t k = 1; k < best.size(); ++k)
    REQUIRE(best[k].squared_error <= best[k - 1].squared_error + 1e-13 * energy);
  REQUIRE(best.back().squared_error < 1e-4 * best.front().squared_error);
}

TEST_CASE("measure_codebook: nearest, cuts and the mean of stochastic draws", "[quant][sls]") {
  twin::Distinct d{{-1, 0, 0.25, 1}, {1, 2, 4, 8}};
  const Group group = group_of(d);  // counts 1 2 3 1
  const Codebook book = Codebook::table({-1, 0, 1});
  REQUIRE(measure_codebook(group, book, Rounding::nearest).squared_error == 4 * 0.0625);
  REQUIRE(measure_codebook(group, book.with_cuts({0, 0.25f}), Rounding::cuts).squared_error == 4 * 0.5625);
  REQUIRE(measure_codebook(group, book, Rounding::stochastic).squared_error == Approx(4 * 0.25 * 0.75));
  const double p = 5.0 / 7, q = 1.0 / 7;
  REQUIRE(measure_codebook(group, book, Rounding::nearest).entropy_bits ==
          Approx(-p * std::log2(p) - 2 * q * std::log2(q)));
}
