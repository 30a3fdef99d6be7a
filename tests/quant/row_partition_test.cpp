#include "partition/row_partition.hpp"

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "lmq/quant/partition.hpp"
#include "partition_twin.hpp"

using namespace lmq;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Edges of a line of points, as RowPoints wants them.
struct Line {
  std::vector<double> values, weights, sums, inverses;
  RowPoints points;
  bool unit;

  Line(twin::Source source, std::size_t n, bool weighted, std::uint64_t seed) : unit(!weighted) {
    auto d =
        twin::distinct(twin::draw(source, n, seed), weighted ? twin::random_weights(n, seed) : std::vector<float>{});
    values = d.values;
    weights = weighted ? d.weights : std::vector<double>(values.size(), 1.0);
    const std::size_t m = values.size(), stride = m + 1 + kRowPad;
    sums.assign(3 * stride, 0.0);
    double *W = sums.data() + kRowPad, *S = W + stride, *C = S + stride;
    for (std::size_t i = 0; i < m; ++i) {
      const double v = values[i] - values[m / 2], w = weights[i];
      W[i + 1] = W[i] + w, S[i + 1] = S[i] + w * v, C[i + 1] = C[i] + w * v * v;
    }
    inverses.resize(m + kRowPad);
    for (std::size_t k = 2; k <= m + kRowPad; ++k) inverses[m + kRowPad - k] = 1 / static_cast<double>(k);
    inverses.back() = kInfinity;
    points = {m, W, S, C, unit ? inverses.data() + inverses.size() : nullptr, n % 2 == 0};
  }
  // The meaning of RowScans' cost.
  [[nodiscard]] double cost(std::size_t i, std::size_t j) const {
    if (j == i + 1) return 0;
    const double b = points.S[j] - points.S[i], c = points.C[j] - points.C[i];
    const double x = unit ? c - b * b * (1 / static_cast<double>(j - i)) : c - b * b / (points.W[j] - points.W[i]);
    return x > 0 ? x : 0;
  }
};

std::vector<const RowScans*> all_sets() {
  std::vector<const RowScans*> sets(4);
  sets.resize(row_scan_sets(sets.data(), sets.size()));
  return sets;
}

}  // namespace

TEST_CASE("rows: E1 of every instruction set gives the bits of the plain recurrence", "[quant][partition][twin]") {
  for (const auto source : {twin::Source::normal, twin::Source::student, twin::Source::uniform, twin::Source::dynamic})
    for (const std::size_t n : {1, 2, 3, 7, 8, 9, 12, 13, 16, 17, 64, 129, 400})
      for (const bool weighted : {false, true})
        for (const double part : {1e-9, 1e-5, 1e-3, 0.1, 10.0}) {
          const Line line(source, n, weighted, n);
          const std::size_t m = line.points.m;
          const double penalty = part * line.cost(0, m);
          std::vector<double> expected(m + 1), f(m + 1 + kRowPad);
          std::vector<std::uint32_t> expected_at(m + 1), at(m + 1);
          for (std::size_t j = 1; j <= m; ++j) {
            expected[j] = kInfinity;
            for (std::size_t i = 0; i < j; ++i)
              if (const double x = expected[i] + (line.cost(i, j) + penalty); x < expected[j])
                expected[j] = x, expected_at[j] = static_cast<std::uint32_t>(i);
          }
          for (std::size_t set = 0; const RowScans* scans : all_sets()) {
            CAPTURE(static_cast<int>(source), n, weighted, part, set++);
            scans->penalised(line.points, {penalty, f.data() + kRowPad, at.data()});
            REQUIRE(std::equal(expected.begin(), expected.end(), f.begin() + kRowPad));
            REQUIRE(std::equal(expected_at.begin() + 1, expected_at.end(), at.begin() + 1));
          }
        }
}

// More than 40 lines: the plain recurrence stands beside what is compared with it.
TEST_CASE("rows: layers in windows of every instruction set give the bits of the plain recurrence",
          "[quant][partition][twin]") {
  std::mt19937_64 random(5);
  for (const std::size_t n : {3, 8, 20, 64, 129, 300})
    for (const bool weighted : {false, true})
      for (const std::size_t cells : {2, 3, 8, 40}) {
        const Line line(twin::Source::normal, n, weighted, n + cells);
        const std::size_t m = line.points.m;
        if (cells >= m) continue;
        for (const std::size_t width : {std::size_t{0}, std::size_t{3}, std::size_t{30}, m}) {
          std::vector<std::uint32_t> low(cells + 1), high(cells + 1);  // about some path
          for (std::size_t t = 1; t < cells; ++t) {
            const std::size_t middle = t * m / cells, before = random() % (width + 1), behind = random() % (width + 1);
            low[t] = static_cast<std::uint32_t>(
                std::max<std::size_t>(middle > before ? middle - before : 0, low[t - 1] + 1));
            high[t] = static_cast<std::uint32_t>(std::min(middle + behind, m - cells + t));
            high[t] = std::max({high[t], high[t - 1] + 1, low[t]});
          }
          low[cells] = high[cells] = static_cast<std::uint32_t>(m);
          for (std::size_t t = cells; t-- > 1;) {  // strictly ascending backwards, too
            high[t] = std::min(high[t], high[t + 1] - 1);
            low[t] = std::min(low[t], high[t]);
          }
          std::vector<double> before(m + 1, kInfinity);
          before[0] = 0;
          std::vector<std::uint32_t> expected;
          for (std::size_t t = 1; t <= cells; ++t) {
            std::vector<double> now(m + 1, kInfinity);
            for (std::size_t j = low[t]; j <= high[t]; ++j) {
              expected.push_back(0);
              for (std::size_t i = low[t - 1]; i <= high[t - 1] && i < j; ++i) {
                const double x = before[i] + line.cost(i, j);
                if (x < now[j]) now[j] = x, expected.back() = static_cast<std::uint32_t>(i);
              }
            }
            before = now;
          }
          for (std::size_t set = 0; const RowScans* scans : all_sets()) {
            CAPTURE(n, weighted, cells, width, set++);
            std::vector<double> f(m + 1 + kRowPad), g(m + 1 + kRowPad);
            std::vector<std::uint32_t> back(expected.size()), at(cells + 1);
            scans->windows(line.points, {cells, low.data(), high.data(), f.data() + kRowPad, g.data() + kRowPad,
                                         back.data(), at.data()});
            REQUIRE(back == expected);
            REQUIRE((cells % 2 == 1 ? f : g)[kRowPad + m] == before[m]);
          }
        }
      }
}

TEST_CASE("rows: small groups of every kind have the loss of the slow recurrence", "[quant][partition][twin]") {
  PartitionSolver solver;
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    const auto source = twin::kSources[seed % std::size(twin::kSources)];
    const std::size_t n = std::array{32, 64, 128, 33, 100}[seed / 10 % 5];
    const auto x = twin::draw(source, n, seed);
    const auto d = twin::distinct(x, seed % 4 == 3 ? twin::random_weights(n, seed + 1) : std::vector<float>{});
    const std::size_t m = d.values.size(), most = std::min<std::size_t>(32, m);
    const auto best = twin::best_losses(d.values, d.weights, most);
    double energy = 0;
    for (std::size_t i = 0; i < m; ++i) {
      const double v = d.values[i] - d.values[m / 2];
      energy += d.weights[i] * v * v;
    }
    for (const std::size_t cells : {2, 3, 4, 7, 8, 15, 16, 17, 31, 32}) {
      if (cells > most) continue;
      CAPTURE(seed, static_cast<int>(source), n, m, cells);
      const auto ends = solver.solve(d.values, d.weights, cells, PartitionSolver::Engine::rows);
      const std::vector<std::uint32_t> path(ends.begin(), ends.end());
      REQUIRE(path.size() == cells + 1);
      REQUIRE(std::is_sorted(path.begin(), path.end(), std::less_equal<>{}));
      REQUIRE(twin::loss_of(d.values, d.weights, path) <= best[cells] * (1 + 1e-12) + 4e-16 * energy);
    }
  }
}

// Equal values are points of their own where they are few: the levels must be as good as those of the distinct ones.
TEST_CASE("rows: groups of rounded weights have as many levels as fit, at the loss of the slow recurrence",
          "[quant][partition][twin]") {
  PartitionSolver solver;
  std::vector<float> levels(256);
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    const std::size_t n = std::array{32, 64, 128, 128, 200}[seed % 5];
    auto x = twin::draw(seed % 2 == 0 ? twin::Source::normal : twin::Source::laplace, n, seed);
    for (float& v : x) v = std::round(v * 4096) / 4096;  // some equal ones, also zeros
    if (seed % 7 == 0) x[1] = -0.0f, x[2] = 0.0f;
    for (const std::vector<float>& w : {std::vector<float>{}, twin::random_weights(n, seed),
                                        std::vector<float>(n, 0.0f), std::vector<float>(n, 3.0f)}) {
      const bool counts = w.empty() || w[0] == 0 || w == std::vector<float>(n, 3.0f);
      const auto d = twin::distinct(x, counts ? std::vector<float>{} : w);
      const std::size_t m = d.values.size();
      const auto best = twin::best_losses(d.values, d.weights, std::min<std::size_t>(32, m));
      for (const std::size_t cells : {2, 4, 8, 16, 32}) {
        CAPTURE(seed, n, m, counts, cells);
        const std::size_t count = solver.fit_values(x, w, cells, levels);
        REQUIRE(count == std::min(cells, m));
        REQUIRE(
            std::is_sorted(levels.begin(), levels.begin() + static_cast<std::ptrdiff_t>(count), std::less_equal<>{}));
        if (cells > m) continue;
        double loss = 0, energy = 0;
        for (std::size_t i = 0; i < m; ++i) {
          double nearest = kInfinity;
          for (std::size_t k = 0; k < count; ++k)
            nearest = std::min(nearest, std::abs(d.values[i] - double{levels[k]}));
          loss += d.weights[i] * nearest * nearest;
          energy += d.weights[i] * d.values[i] * d.values[i];
        }
        REQUIRE(loss <= best[cells] * (1 + 1e-12) + 2e-14 * energy);  // levels are rounded to float: 2^-24, squared
      }
    }
  }
}
