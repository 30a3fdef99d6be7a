#include "lmq/quant/partition.hpp"

#include <bit>
#include <catch2/catch.hpp>

#include "lmq/kernels/partition_scan.hpp"
#include "partition/engines.hpp"
#include "partition_twin.hpp"

using namespace lmq;
using Engine = PartitionSolver::Engine;

namespace {

// Rounding of prefix sums in double: relative to the loss, and absolutely to the energy about the middle value.
double tolerance(double best, const twin::Distinct& d) {
  double energy = 0;
  for (std::size_t i = 0; i < d.values.size(); ++i) {
    const double v = d.values[i] - d.values[d.values.size() / 2];
    energy += d.weights[i] * v * v;
  }
  return 1e-12 * best + 4e-16 * energy;
}

void require_optimal(PartitionSolver& solver, const twin::Distinct& d, std::size_t cells, double best, Engine engine) {
  const auto ends = solver.solve(d.values, d.weights, cells, engine);
  const std::vector<std::uint32_t> copy(ends.begin(), ends.end());
  REQUIRE(copy.size() == std::min(cells, d.values.size()) + 1);
  REQUIRE(copy.front() == 0);
  REQUIRE(copy.back() == d.values.size());
  REQUIRE(std::is_sorted(copy.begin(), copy.end(), std::less_equal<>{}));
  const double loss = twin::loss_of(d.values, d.weights, copy);
  CAPTURE(loss - best, loss, best, static_cast<int>(engine));
  REQUIRE(loss <= best + tolerance(best, d));
  REQUIRE(solver.loss() == Approx(loss).epsilon(1e-10).margin(1e-300));
}

}  // namespace

TEST_CASE("partition: equals brute force over all cuts of up to 10 points, with and without weights",
          "[quant][partition]") {
  PartitionSolver solver;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const std::size_t n = 1 + seed % 10;
    const auto source = twin::kSources[seed / 10 % std::size(twin::kSources)];
    const auto d = twin::distinct(twin::draw(source, n, seed),
                                  seed % 2 ? twin::random_weights(n, seed + 1) : std::vector<float>{});
    for (std::size_t cells = 1; cells <= 5; ++cells) {
      CAPTURE(seed, n, cells);
      const double best = twin::brute_force(d.values, d.weights, cells);
      for (const Engine engine : {Engine::automatic, Engine::layered, Engine::lagrangian, Engine::interlaced,
                                  Engine::narrowing, Engine::rows})
        require_optimal(solver, d, cells, best, engine);
    }
  }
}

TEST_CASE("partition: every engine finds the optimum of the slow twin on every source", "[quant][partition][twin]") {
  PartitionSolver solver;
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    const auto source = twin::kSources[seed % std::size(twin::kSources)];
    const std::size_t n = 20 + seed * 7 % 110;
    const auto d = twin::distinct(twin::draw(source, n, seed),
                                  seed % 3 == 0 ? twin::random_weights(n, seed + 1) : std::vector<float>{});
    const std::size_t most = std::min<std::size_t>(8, d.values.size());
    const auto best = twin::best_losses(d.values, d.weights, most);
    for (std::size_t cells = 1; cells <= most; ++cells)
      for (const Engine engine : {Engine::automatic, Engine::layered, Engine::lagrangian, Engine::interlaced,
                                  Engine::narrowing, Engine::rows}) {
        CAPTURE(seed, static_cast<int>(source), n, cells);
        require_optimal(solver, d, cells, best[cells], engine);
      }
  }
}

TEST_CASE("partition: narrowing closes on larger inputs as on small ones", "[quant][partition][twin]") {
  PartitionSolver solver;
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    const auto source = twin::kSources[seed % std::size(twin::kSources)];
    const std::size_t n = 300 + seed * 97 % 3000;
    const auto d = twin::distinct(twin::draw(source, n, seed),
                                  seed % 3 == 0 ? twin::random_weights(n, seed + 1) : std::vector<float>{});
    for (const std::size_t cells : {2, 3, 5, 16, 23}) {
      if (cells >= d.values.size()) continue;
      CAPTURE(seed, static_cast<int>(source), n, cells);
      const auto ends = solver.solve(d.values, d.weights, cells, Engine::layered);
      const double best = twin::loss_of(d.values, d.weights, ends);
      require_optimal(solver, d, cells, best, Engine::narrowing);
    }
  }
}

TEST_CASE("partition: 65536 points, every engine against plain divide and conquer", "[quant][partition][slow]") {
  PartitionSolver solver;
  for (const auto source : {twin::Source::normal, twin::Source::student}) {
    const bool weighted = source == twin::Source::student;
    const auto d =
        twin::distinct(twin::draw(source, 65536, 1), weighted ? twin::random_weights(65536, 2) : std::vector<float>{});
    const auto all = solver.all(d.values, d.weights, 16);
    for (const std::size_t cells : {2, 4, 7, 16}) {
      const double best = twin::loss_of(d.values, d.weights, all.ends(cells));
      for (const Engine engine : {Engine::automatic, Engine::layered, Engine::lagrangian, Engine::interlaced,
                                  Engine::narrowing, Engine::rows}) {
        CAPTURE(static_cast<int>(source), cells);
        require_optimal(solver, d, cells, best, engine);
      }
    }
    (void)solver.solve(d.values, d.weights, 256, Engine::layered);
    const double best = solver.loss();
    for (const Engine engine : {Engine::lagrangian, Engine::interlaced}) require_optimal(solver, d, 256, best, engine);
  }
}

TEST_CASE("partition: the scans of every instruction set give the same bits", "[quant][partition][twin]") {
  const PartitionScans* sets[4];
  const std::size_t count = partition_scan_sets(sets, 4);
  std::mt19937_64 random(3);
  std::uniform_real_distribution<double> uniform(-1, 1);
  for (const std::size_t n : {1, 2, 7, 8, 9, 16, 17, 63, 64, 65, 66, 200, 1000}) {
    // The second layer of a partition of n + 1 points into cells: base is the loss of one cell.
    std::vector<double> w(n + 1), s(n + 1), base(n), row_s(n), row_w(n);
    for (std::size_t k = 0; k <= n; ++k)
      w[k] = static_cast<double>(k + 1), s[k] = (k > 0 ? s[k - 1] : 0) + static_cast<double>(k) + uniform(random);
    for (std::size_t k = 0; k < n; ++k) base[k] = -s[k] * s[k] / w[k], row_s[k] = s[k + 1], row_w[k] = w[k + 1];
    std::vector<std::uint32_t> limit(n);
    for (std::size_t k = 0; k < n; ++k) limit[k] = static_cast<std::uint32_t>(k + 1);
    std::vector<double> expected(n), value(n);
    std::vector<std::uint32_t> expected_at(n), at(n);
    for (std::size_t r = 0; r < n; ++r) {  // the meaning
      expected[r] = std::numeric_limits<double>::infinity();
      for (std::uint32_t k = 0; k < limit[r]; ++k) {
        const double e = row_s[r] - s[k], x = base[k] - e * e / (row_w[r] - w[k]);
        if (x < expected[r]) expected[r] = x, expected_at[r] = k;
      }
    }
    for (std::size_t i = 0; i < count; ++i) {
      CAPTURE(n, i);
      sets[i]->layer(
          {n, base.data(), s.data(), w.data(), n, row_s.data(), row_w.data(), limit.data(), value.data(), at.data()});
      REQUIRE(value == expected);
      REQUIRE(at == expected_at);
    }
  }
}

TEST_CASE("partition: E2 equals E3, and the loss is convex in the number of cells", "[quant][partition]") {
  PartitionSolver solver;
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    const auto source = twin::kSources[seed % std::size(twin::kSources)];
    if (source == twin::Source::dynamic) continue;  // prefix sums from one end blur E3's sums
    const auto d = twin::distinct(twin::draw(source, 400, seed),
                                  seed % 2 ? twin::random_weights(400, seed) : std::vector<float>{});
    const std::size_t most = std::min<std::size_t>(60, d.values.size());
    const auto all = solver.all(d.values, d.weights, most);
    const auto losses = all.losses();
    const double slack = tolerance(0, d);
    for (std::size_t cells = 1; cells <= most; ++cells) {
      CAPTURE(seed, static_cast<int>(source), cells);
      REQUIRE(twin::loss_of(d.values, d.weights, all.ends(cells)) == Approx(losses[cells]).epsilon(1e-9).margin(slack));
      require_optimal(solver, d, cells, losses[cells] + slack, Engine::lagrangian);
      if (cells > 1) REQUIRE(losses[cells] <= losses[cells - 1]);
      if (cells > 2) REQUIRE(losses[cells] + losses[cells - 2] >= 2 * losses[cells - 1] - 4 * slack);
    }
  }
}

TEST_CASE("partition: published optima of the analytic BF16 histogram of 2^24 normal weights", "[quant][partition]") {
  std::vector<double> values, weights;
  for (int sign = -1; sign <= 1; sign += 2)
    for (std::uint32_t bits = 0x0080; bits < 0x7F80; ++bits) {
      const float v = std::bit_cast<float>(bits << 16);
      const double z = double{v} / 0.02, pdf = std::exp(-0.5 * z * z) / (0.02 * std::sqrt(2 * 3.14159265358979323846));
      const double count = std::floor(16777216.0 * pdf * std::ldexp(1.0, static_cast<int>(bits >> 7) - 134) + 0.5);
      if (!(count > 0)) continue;
      values.push_back(sign * double{v});
      weights.push_back(count);
    }
  std::vector<std::size_t> order(values.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::ranges::sort(order, [&](std::size_t a, std::size_t b) { return values[a] < values[b]; });
  twin::Distinct d;
  for (const std::size_t i : order) d.values.push_back(values[i]), d.weights.push_back(weights[i]);
  REQUIRE(d.values.size() == 4766);
  PartitionSolver solver;
  const std::pair<std::size_t, double> expected[] = {
      {4, 7.901202e2}, {16, 6.389021e1}, {64, 4.3104}, {256, 2.613461e-1}, {1024, 3.404869e-3}};
  for (const auto& [cells, loss] : expected)
    for (const Engine engine :
         {Engine::automatic, Engine::lagrangian, Engine::interlaced, Engine::narrowing, Engine::rows}) {
      (void)solver.solve(d.values, d.weights, cells, engine);
      CAPTURE(cells, static_cast<int>(engine), solver.loss());
      REQUIRE(solver.loss() == Approx(loss).epsilon(3e-7 + (cells == 64 ? 1e-5 : 0)));
    }
}

TEST_CASE("partition: scaling by a power of two scales the levels, bit for bit", "[quant][partition]") {
  PartitionSolver solver;
  const auto d = twin::distinct(twin::draw(twin::Source::student, 3000, 5), twin::random_weights(3000, 6));
  for (const std::size_t cells : {2, 7, 16, 100}) {
    (void)solver.solve(d.values, d.weights, cells);
    const auto levels = solver.levels();
    for (const double scale : {0x1p-100, 0.5, 8.0, 0x1p90}) {
      twin::Distinct other = d;
      for (double& v : other.values) v *= scale;
      for (double& w : other.weights) w *= 4;
      (void)solver.solve(other.values, other.weights, cells);
      const auto scaled = solver.levels();
      REQUIRE(scaled.size() == levels.size());
      for (std::size_t k = 0; k < levels.size(); ++k) REQUIRE(scaled[k] == levels[k] * scale);
    }
  }
}

TEST_CASE("partition: Lloyd's steps never find better, levels are means and cells nearest", "[quant][partition]") {
  PartitionSolver solver;
  for (const auto source : twin::kSources) {
    const auto d = twin::distinct(twin::draw(source, 2000, 3));
    const std::size_t m = d.values.size();
    for (const std::size_t cells : {3, 16}) {
      if (cells >= m) continue;
      const auto span = solver.solve(d.values, d.weights, cells);
      const std::vector<std::uint32_t> ends(span.begin(), span.end());
      const auto levels = solver.levels();
      for (std::size_t t = 0; t + 1 < cells; ++t) {
        CAPTURE(static_cast<int>(source), cells, t);
        REQUIRE(levels[t] < levels[t + 1]);
        const double middle = 0.5 * (levels[t] + levels[t + 1]), slack = 1e-9 * (levels[t + 1] - levels[t]);
        REQUIRE(d.values[ends[t + 1] - 1] <= middle + slack);
        REQUIRE(d.values[ends[t + 1]] >= middle - slack);
      }
      std::vector<std::uint32_t> moved = ends;
      for (std::size_t t = 1; t < cells; ++t) {
        for (const int step : {-1, 1}) {
          moved = ends;
          moved[t] = static_cast<std::uint32_t>(static_cast<int>(moved[t]) + step);
          if (moved[t] <= moved[t - 1] || moved[t] >= moved[t + 1]) continue;
          const double best = twin::loss_of(d.values, d.weights, ends);
          REQUIRE(twin::loss_of(d.values, d.weights, moved) >= best - tolerance(best, d));
        }
      }
    }
  }
}

TEST_CASE("partition: floats in any order, ties, weights and odd sizes fit as their distinct values do",
          "[quant][partition]") {
  PartitionSolver solver, other;
  std::vector<float> levels(256), again(256);
  for (const auto source : twin::kSources)
    for (const std::size_t n : {1, 2, 3, 31, 32, 64, 100, 128, 1023, 1024, 1025, 4096}) {
      const auto x = twin::draw(source, n, n);
      for (const bool weighted : {false, true}) {
        const auto w = weighted ? twin::random_weights(n, 7) : std::vector<float>{};
        const auto d = twin::distinct(x, w);
        for (const std::size_t cells : {2, 4, 16}) {
          CAPTURE(static_cast<int>(source), n, weighted, cells);
          const std::size_t count = solver.fit_values(x, w, cells, levels);
          (void)other.solve(d.values, d.weights, cells);
          const auto expected = other.levels();
          REQUIRE(count == expected.size());
          REQUIRE(count == std::min(cells, d.values.size()));
          double loss = 0, best = other.loss(), rounding = 0;  // of levels to float
          for (std::size_t i = 0; i < d.values.size(); ++i) {
            double nearest = std::numeric_limits<double>::infinity();
            for (std::size_t k = 0; k < count; ++k)
              nearest = std::min(nearest, std::abs(d.values[i] - double{levels[k]}));
            loss += d.weights[i] * nearest * nearest;
            rounding += d.weights[i] * d.values[i] * d.values[i] * 0x1p-48 + d.weights[i] * 1e-90;
          }
          REQUIRE(loss <= best + 2 * std::sqrt(best * rounding) + 2 * rounding + tolerance(best, d));
          auto turned = x;
          std::ranges::reverse(turned);
          auto turned_weights = w;
          std::ranges::reverse(turned_weights);
          REQUIRE(other.fit_values(turned, turned_weights, cells, again) == count);
          if (!weighted) REQUIRE(std::equal(again.begin(), again.begin() + count, levels.begin()));
        }
      }
    }
}

TEST_CASE("partition: constants, zero weights, two values, huge and subnormal values", "[quant][partition]") {
  PartitionSolver solver;
  std::vector<float> levels(256);
  const auto fit = [&](std::vector<float> x, std::vector<float> w, std::size_t cells) {
    const std::size_t count = solver.fit_values(x, w, cells, levels);
    return std::vector<float>(levels.begin(), levels.begin() + count);
  };
  using Floats = std::vector<float>;
  REQUIRE(fit({3.5f}, {}, 4) == Floats{3.5f});
  REQUIRE(fit(Floats(1000, -0.1f), {}, 4) == Floats{-0.1f});
  REQUIRE(fit({-0.0f, 0.0f, -0.0f}, {}, 2) == Floats{0.0f});
  REQUIRE_FALSE(std::signbit(levels[0]));
  REQUIRE(fit({7, 1, 7, 1, 1}, {}, 2) == Floats{1, 7});
  REQUIRE(fit({3e38f, -3e38f, 3e38f}, {}, 16) == Floats{-3e38f, 3e38f});
  REQUIRE(fit({3e38f, -3e38f, 2e38f, -2e38f}, {}, 2) == Floats{-2.5e38f, 2.5e38f});
  REQUIRE(fit({1e-45f, 3e-45f, 0}, {}, 3) == Floats{0, 1e-45f, 3e-45f});
  REQUIRE(fit({1, 2, 3}, {0, 0, 0}, 1) == Floats{2});
  REQUIRE(fit({1, 2, 30}, {1, 0, 1}, 2) == Floats{1, 30});
  REQUIRE(fit({1, 2, 3, 4}, {1e-38f, 1e-38f, 1e-38f, 1e-38f}, 2) == Floats{1.5f, 3.5f});
  REQUIRE(fit({1, 2, 3, 4}, {3e38f, 3e38f, 3e38f, 3e38f}, 2) == Floats{1.5f, 3.5f});
}
