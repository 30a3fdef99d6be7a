// Levels of unbiased rounding: the solvers against each other, brute force and the quadratic programme.
#include <catch2/catch.hpp>
#include <cmath>

#include "level_twin.hpp"
#include "methods/stochastic/level_narrowing.hpp"

using namespace lmq;
using Engine = LevelNarrowing::Engine;

namespace {

void check_path(std::span<const std::uint32_t> path, std::size_t levels, std::size_t edges) {
  REQUIRE(path.size() == levels);
  REQUIRE(path.front() == 0);
  REQUIRE(path.back() == edges - 1);
  for (std::size_t t = 1; t < path.size(); ++t) REQUIRE(path[t - 1] <= path[t]);
}

twin::Distinct points(twin::Source source, std::size_t n, bool weighted, std::uint64_t seed) {
  auto x = twin::draw(source, n, seed);
  auto made = weighted ? twin::distinct(x, twin::random_weights(n, seed + 1)) : twin::distinct(x);
  if (weighted && seed % 3 == 0)
    for (std::size_t i = 0; i < made.weights.size(); i += 4) made.weights[i] = 0;  // they bound, and cost nothing
  return made;
}

/// What rounding of sums of 106 bits may leave of a cost.
double crumbs(const twin::Distinct& data) {
  double energy = 0;
  for (std::size_t i = 0; i < data.values.size(); ++i) energy += data.weights[i] * data.values[i] * data.values[i];
  return energy * 0x1p-94;
}

}  // namespace

TEST_CASE("levels: both engines find brute force's optimum on two thousand small cases", "[quant][levels]") {
  std::uint64_t seed = 0;
  LevelNarrowing solver;
  for (int round = 0; round < 25; ++round)
    for (const auto source : twin::kSources)
      for (const bool weighted : {false, true}) {
        ++seed;
        const auto data = points(source, 2 + seed % 10, weighted, seed);
        const LevelSums line = twin::line_of(data.values, data.weights);
        for (const std::size_t levels : {2, 3, 4, 6}) {
          const double best = twin::brute_levels(data.values, data.weights, levels);
          for (const auto engine : {Engine::layered, Engine::narrowing}) {
            CAPTURE(static_cast<int>(source), seed, levels, static_cast<int>(engine), data.values.size());
            const auto found = solver.solve(line, levels, 0, engine);
            check_path(found.path, levels, line.edges());
            const double cost = twin::variance_of(data.values, data.weights, found.path);
            REQUIRE(cost <= best * (1 + 1e-10) + crumbs(data));
            REQUIRE(std::abs(found.cost - cost) <= 1e-10 * cost + crumbs(data));
            REQUIRE(found.bound <= best * (1 + 1e-9) + crumbs(data));
          }
        }
      }
}

TEST_CASE("levels: both engines cost what the quadratic programme's optimum costs", "[quant][levels][slow]") {
  std::uint64_t seed = 100;
  LevelNarrowing solver;
  for (int round = 0; round < 60; ++round)
    for (const auto source : twin::kSources)
      for (const bool weighted : {false, true}) {
        ++seed;
        const auto data = points(source, 20 + seed % 31, weighted, seed);
        const LevelSums line = twin::line_of(data.values, data.weights);
        const auto best = twin::best_variances(data.values, data.weights, 9);
        for (const std::size_t levels : {2, 3, 5, 9})
          for (const auto engine : {Engine::layered, Engine::narrowing}) {
            CAPTURE(static_cast<int>(source), seed, levels, static_cast<int>(engine), data.values.size());
            const auto found = solver.solve(line, levels, 0, engine);
            const double cost = twin::variance_of(data.values, data.weights, found.path);
            REQUIRE(cost <= best[levels] * (1 + 1e-10) + crumbs(data));
            REQUIRE(cost >= best[levels] * (1 - 1e-10) - crumbs(data));
            REQUIRE(found.bound >= cost * (1 - 1e-8) - crumbs(data));
          }
      }
}

TEST_CASE("levels: narrowing costs what the layered programme costs on thousands of values", "[quant][levels][slow]") {
  LevelNarrowing solver;
  for (const auto source : twin::kSources)
    for (const bool weighted : {false, true})
      for (const std::size_t levels : {3, 4, 16, 33}) {
        const auto data = points(source, 5000, weighted, 7 * levels + weighted);
        const LevelSums line = twin::line_of(data.values, data.weights);
        const auto exact = solver.solve(line, levels, 0, Engine::layered);
        const auto found = solver.solve(line, levels, 0, Engine::narrowing);
        CAPTURE(static_cast<int>(source), weighted, levels, exact.cost, found.cost);
        REQUIRE(std::abs(found.cost - exact.cost) <= 1e-10 * exact.cost);
        REQUIRE(found.open_bins.empty());
        const auto near = solver.solve(line, levels, 0.01, Engine::narrowing);
        REQUIRE(near.cost <= exact.cost * 1.01);
        REQUIRE(near.bound <= exact.cost * (1 + 1e-9));
        REQUIRE(near.cost <= near.bound * 1.01);
      }
}

TEST_CASE("levels: bins are opened until the optimum of the single values is found", "[quant][levels]") {
  LevelNarrowing solver;
  for (const auto source : twin::kSources)
    for (const bool weighted : {false, true})
      for (const std::size_t levels : {3, 8, 16}) {
        const auto data = points(source, 2000, weighted, 3 * levels + weighted);
        const auto exact = solver.solve(twin::line_of(data.values, data.weights), levels, 0, Engine::layered);
        std::vector<std::uint32_t> open;
        std::vector<std::size_t> begin;
        for (int round = 0;; ++round) {
          REQUIRE(round < 6);
          const LevelSums line = twin::binned_line(data.values, data.weights, 13, open, begin);
          const auto found = solver.solve(line, levels, 0, Engine::narrowing);
          CAPTURE(static_cast<int>(source), weighted, levels, exact.cost, found.cost, found.bound, round);
          REQUIRE(found.bound <= exact.cost * (1 + 1e-9));
          REQUIRE(found.cost >= exact.cost * (1 - 1e-9));  // edges are values here
          if (found.open_bins.empty()) {
            REQUIRE(found.cost <= exact.cost * (1 + 1e-9));
            break;
          }
          for (const std::uint32_t bin : found.open_bins) open.push_back(static_cast<std::uint32_t>(begin[bin]));
          std::ranges::sort(open);
        }
      }
}

TEST_CASE("levels: cost falls and is convex in the number of levels; mirrored and moved data cost the same",
          "[quant][levels]") {
  LevelNarrowing solver;
  for (const auto source : {twin::Source::normal, twin::Source::student, twin::Source::discrete}) {
    const auto data = points(source, 700, true, 5);
    const LevelSums line = twin::line_of(data.values, data.weights);
    auto mirrored = data;
    std::ranges::reverse(mirrored.values), std::ranges::reverse(mirrored.weights);
    for (double& x : mirrored.values) x = 1024 - 2 * x;
    const LevelSums other = twin::line_of(mirrored.values, mirrored.weights);
    std::vector<double> cost;
    for (std::size_t levels = 2; levels < 30; ++levels) {
      cost.push_back(solver.solve(line, levels).cost);
      REQUIRE(std::abs(solver.solve(other, levels).cost - 4 * cost.back()) <= 1e-8 * cost.back());
    }
    for (std::size_t k = 1; k < cost.size(); ++k) REQUIRE(cost[k] <= cost[k - 1]);
    for (std::size_t k = 2; k < cost.size(); ++k)
      REQUIRE(cost[k] - cost[k - 1] >= (cost[k - 1] - cost[k - 2]) - 1e-9 * cost[0]);
  }
}

TEST_CASE("levels: known optima of three curves of 4096 values", "[quant][levels]") {
  struct Row {
    int curve;
    bool weighted;
    std::vector<double> costs;  // 3, 4, 5, 8, 16, 64 levels
  };
  const std::vector<Row> rows{
      {0, false, {114.758967899, 51.8498802316, 29.4135497758, 9.71194363515, 2.13218886398, 0.121483921986}},
      {1, false, {4911.53391791, 1974.95780225, 1064.18339621, 331.878747882, 70.4372275293, 3.74892529333}},
      {2, false, {516436.060717, 218929.333869, 107868.087342, 33473.4478839, 7043.39666208, 380.464919689}},
      {0, true, {459.035486878, 207.400373313, 117.653965975, 38.847531037, 8.52846156659, 0.484810389286}},
      {1, true, {19670.4865002, 7919.88249961, 4274.24592908, 1339.48640189, 288.116236429, 14.5944851264}},
      {2, true, {2066450.98812, 876372.592665, 432010.986823, 134247.103858, 28248.5521679, 1439.01549318}}};
  const std::vector<std::size_t> levels{3, 4, 5, 8, 16, 64};
  LevelNarrowing solver;
  for (const Row& row : rows) {
    std::vector<double> x(4096), w(4096, 1.0);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double u = (static_cast<double>(i) + 0.5) / 4096;
      x[i] = row.curve == 0 ? u * u * u : row.curve == 1 ? -std::log(1 - u) : std::tan(0.495 * M_PI * (2 * u - 1));
      if (row.weighted) w[i] = 1 + static_cast<double>(i % 7);
    }
    const LevelSums line = twin::line_of(x, w);
    for (std::size_t k = 0; k < levels.size(); ++k)
      for (const auto engine : {Engine::layered, Engine::narrowing}) {
        CAPTURE(row.curve, row.weighted, levels[k]);
        REQUIRE(solver.solve(line, levels[k], 0, engine).cost == Approx(row.costs[k]).epsilon(5e-12));
      }
  }
}

TEST_CASE("levels: every instruction set scans a layer as the plain loop does", "[quant][levels][twin]") {
  std::vector<LevelScan> sets(4);
  sets.resize(level_scan_sets(sets.data(), sets.size()));
  for (const std::size_t rows : {1, 2, 7, 8, 9, 15, 16, 17, 100, 1000})
    for (const std::size_t candidates : {1, 3, 8, 17, 300, 1001})
      for (const int shift : {0, 500, -3}) {
        const auto x = points(twin::Source::student, 4000, false, rows + candidates);
        const LevelSums line = twin::line_of(x.values, x.weights);
        std::vector<double> base, u, v, place, row_u, row_v, row_place;
        for (std::size_t k = 0; k < candidates; ++k) {
          const auto at = line.at(2 * k + (shift > 0 ? static_cast<std::size_t>(shift) : 0));
          base.push_back(static_cast<double>(candidates - k) - at.H);
          u.push_back(at.P), v.push_back(at.x);
          place.push_back(2 * static_cast<double>(k) + shift);
        }
        for (std::size_t r = 0; r < rows; ++r) {
          const auto at = line.at(2 * r + 1);
          row_u.push_back(at.x), row_v.push_back(at.P), row_place.push_back(2 * static_cast<double>(r) + 1);
        }
        std::vector<double> expected(rows), value(rows);
        std::vector<std::uint32_t> expected_argument(rows), argument(rows);
        LevelLayer layer{candidates,
                         base.data(),
                         u.data(),
                         v.data(),
                         place.data(),
                         rows,
                         row_u.data(),
                         row_v.data(),
                         row_place.data(),
                         expected.data(),
                         expected_argument.data()};
        level_scan_reference(layer);
        layer.value = value.data(), layer.argument = argument.data();
        for (const LevelScan scan : sets) {
          CAPTURE(rows, candidates, shift);
          scan(layer);
          REQUIRE(value == expected);
          REQUIRE(argument == expected_argument);
        }
      }
}
