// Sparse least squares: each solver against a slow one that shares nothing with it.
#include <catch2/catch.hpp>

#include "methods/sparse/sls_l1.hpp"
#include "methods/sparse/sls_l1l2.hpp"
#include "partition_twin.hpp"
#include "sls_samples.hpp"

using namespace lmq;

namespace {

Doubles x_of(std::span<const PooledBlock> blocks, std::size_t m) {
  Doubles x(m);
  for (const PooledBlock& b : blocks)
    for (std::uint32_t k = b.begin; k < b.end; ++k) x[k] = b.value;
  return x;
}

/// 1/2 sum a (u - x)^2 + l1 sum |alpha_k| + l2 sum (alpha_k or jump)^2 over k >= first, in 113 bits.
/// More than 5 parameters: symbols of the paper's objective.
double objective(const twin::Distinct& d, const Doubles& x, double l1, double l2, bool jump, bool offset) {
  twin::Wide sum = 0;
  for (std::size_t k = 0; k < x.size(); ++k) {
    const twin::Wide e = twin::Wide{d.values[k]} - x[k];
    sum += d.weights[k] * e * e / 2;
    if (k == 0) {
      if (offset && d.values[0] != 0) sum += l1 * std::abs(x[0] / d.values[0]);
      continue;
    }
    const twin::Wide gap = twin::Wide{d.values[k]} - d.values[k - 1], step = twin::Wide{x[k]} - x[k - 1];
    const twin::Wide part = jump ? step : step / gap;
    sum += l1 * (step < 0 ? -step : step) / gap + l2 * part * part;
  }
  return static_cast<double>(sum);
}

/// Cyclic coordinate descent on alpha in 113 bits; what the paper's problem is usually given to.
/// More than 5 parameters: symbols of the paper's objective, and sweeps.
double coordinate_descent(const twin::Distinct& d, double l1, double l2, bool jump, bool offset, int sweeps,
                          bool* ascends = nullptr) {
  using twin::Wide;
  const std::size_t m = d.values.size();
  std::vector<Wide> gap(m), alpha(m, 1), residual(m, 0);  // alpha = 1 reproduces u
  for (std::size_t k = 0; k < m; ++k) gap[k] = k == 0 ? Wide{d.values[0]} : Wide{d.values[k]} - d.values[k - 1];
  if (!offset) gap[0] = 1, alpha[0] = d.values[0];
  double best = std::numeric_limits<double>::infinity();
  for (int sweep = 0; sweep < sweeps; ++sweep) {
    for (std::size_t k = 0; k < m; ++k) {
      if (gap[k] == 0) continue;
      Wide square = 0, slope = 0;  // of 1/2 sum a (r + gap (old - new))^2
      for (std::size_t i = k; i < m; ++i) {
        square += d.weights[i] * gap[k] * gap[k];
        slope += d.weights[i] * gap[k] * (residual[i] + gap[k] * alpha[k]);
      }
      const bool penalised = k > 0 || offset;
      const Wide lambda = penalised ? Wide{l1} : Wide{0};
      const Wide second = k > 0 ? Wide{l2} * (jump ? gap[k] * gap[k] : Wide{1}) : Wide{0};
      const Wide shrunk = slope > lambda ? slope - lambda : slope < -lambda ? slope + lambda : Wide{0};
      const Wide next = shrunk / (square + 2 * second);
      for (std::size_t i = k; i < m; ++i) residual[i] += gap[k] * (alpha[k] - next);
      alpha[k] = next;
    }
    Doubles x(m);
    Wide sum = 0;
    for (std::size_t k = 0; k < m; ++k) sum += gap[k] * alpha[k], x[k] = static_cast<double>(sum);
    best = std::min(best, objective(d, x, l1, l2, jump, offset));
    if (ascends) *ascends = std::ranges::is_sorted(x);
  }
  return best;
}

}  // namespace

TEST_CASE("sls-l1: never above coordinate descent, for both offsets, with and without weights", "[quant][sls]") {
  SparseL1 solver;
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    const auto d = problem(seed, 1 + seed % 13, seed % 3 == 0);
    const double most = SparseL1::lambda_max(data_of(d));
    for (const double part : {1e-4, 0.03, 0.4, 1.5})
      for (const SparseOffset offset : {SparseOffset::free, SparseOffset::penalised}) {
        const double lambda = part * (most > 0 ? most : 1);
        const auto x = x_of(solver.solve(data_of(d), lambda, offset), d.values.size());
        const bool penalised = offset == SparseOffset::penalised;
        const double mine = objective(d, x, lambda, 0, false, penalised);
        const double other = coordinate_descent(d, lambda, 0, false, penalised, 30);
        CAPTURE(seed, part, penalised, mine - other, mine);
        REQUIRE(mine <= other * (1 + 1e-12) + 1e-300);
        for (std::size_t k = 1; k < x.size(); ++k) REQUIRE(x[k] >= x[k - 1]);
      }
  }
}

TEST_CASE("sls-l1: equals brute force over all partitions, each with its best values", "[quant][sls]") {
  SparseL1 solver;
  for (std::uint64_t seed = 0; seed < 120; ++seed) {
    const auto d = problem(seed, 1 + seed % 10, seed % 3 == 0);
    const std::size_t m = d.values.size();
    for (const double part : {0.01, 0.2, 0.7}) {
      const double lambda = part * SparseL1::lambda_max(data_of(d));
      double best = std::numeric_limits<double>::infinity();
      for (std::uint32_t cuts = 0; cuts < (1u << (m - 1)); ++cuts) {
        Doubles x(m);
        for (std::size_t p = 0, q = 1; p < m; p = q++) {  // points p .. q - 1 share a level
          while (q < m && (cuts >> (q - 1) & 1) == 0) ++q;
          twin::Wide weight = 0, sum = 0;
          for (std::size_t k = p; k < q; ++k) weight += d.weights[k], sum += twin::Wide{d.weights[k]} * d.values[k];
          if (p > 0) sum -= lambda / (twin::Wide{d.values[p]} - d.values[p - 1]);
          if (q < m) sum += lambda / (twin::Wide{d.values[q]} - d.values[q - 1]);
          for (std::size_t k = p; k < q; ++k) x[k] = static_cast<double>(sum / weight);
        }
        best = std::min(best, objective(d, x, lambda, 0, false, false));
      }
      const double mine = objective(d, x_of(solver.solve(data_of(d), lambda), m), lambda, 0, false, false);
      CAPTURE(seed, part, mine, best);
      REQUIRE(mine <= best * (1 + 1e-12) + 1e-300);
      REQUIRE(mine >= best * (1 - 1e-12) - 1e-300);
    }
  }
}

TEST_CASE("sls-l1: KKT: inside a level no prefix outweighs its slopes, between levels the slopes balance",
          "[quant][sls]") {
  SparseL1 solver;
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    const auto d = problem(seed, 50 + 37 * seed, seed % 2 == 0);
    const SparseData data = data_of(d);
    const std::size_t m = d.values.size();
    for (const double part : {1e-6, 1e-3, 0.1}) {
      const double lambda = part * SparseL1::lambda_max(data);
      const auto x = x_of(solver.solve(data, lambda), m);
      twin::Wide multiplier = 0;  // z_k = sum over the points before edge k of a (x - u)
      for (std::size_t k = 1; k < m; ++k) {
        multiplier += twin::Wide{d.weights[k - 1]} * (twin::Wide{x[k - 1]} - d.values[k - 1]);
        const double limit = lambda / (d.values[k] - d.values[k - 1]), z = static_cast<double>(multiplier);
        // x is rounded to double: each of the k terms is off by a rounding of x.
        const double slack =
            1e-11 * (limit + std::abs(z)) +
            1e-13 * static_cast<double>(m) * d.weights[0] * std::max(std::abs(d.values[0]), std::abs(d.values[m - 1]));
        CAPTURE(seed, part, k, z, limit, slack);
        REQUIRE(z <= limit + slack);
        REQUIRE(z >= -limit - slack);
        if (x[k] > x[k - 1]) REQUIRE(z >= limit - slack);
      }
    }
  }
}

TEST_CASE("sls-iter: the path's states are the solutions for the lambdas between its events", "[quant][sls]") {
  SparseL1 solver, other;
  CellEnds expected, actual;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const auto source = twin::kSources[seed % std::size(twin::kSources)];
    const std::size_t n = 2 + seed * 11 % 400;
    const auto d =
        twin::distinct(twin::draw(source, n, seed), seed % 2 ? twin::random_weights(n, seed) : std::vector<float>{});
    const SparseData data = data_of(d);
    const std::size_t m = d.values.size();
    const auto span = solver.path(data, m);
    const std::vector<VanishingEdge> path(span.begin(), span.end());
    CAPTURE(seed, static_cast<int>(source), n, m);
    REQUIRE(path.size() == m - 1);
    if (m > 1) REQUIRE(path[0].lambda == Approx(SparseL1::lambda_max(data)).epsilon(1e-9));
    for (std::size_t k = 1; k < path.size(); ++k) REQUIRE(path[k].lambda <= path[k - 1].lambda);
    for (std::size_t levels = 1; levels <= m; levels += 1 + levels / 8) {
      const double high = levels >= 2 ? path[levels - 2].lambda : 2 * path[0].lambda;
      const double low = levels <= path.size() ? path[levels - 1].lambda : 0;
      if (!(high > low * (1 + 1e-9))) continue;  // vanish together
      cell_ends(other.solve(data, low + 0.5 * (high - low)), expected);
      cell_ends(path, levels, m, actual);
      CAPTURE(levels, low, high);
      REQUIRE(actual == expected);
    }
    for (const std::size_t most : {2, 5, 64}) {  // a part of the path is the end of the whole
      const auto part = other.path(data, most);
      REQUIRE(part.size() == std::min<std::size_t>(most - 1, m - 1));
      for (std::size_t k = 0; k < part.size(); ++k) {
        REQUIRE(part[k].lambda == Approx(path[k].lambda).epsilon(1e-9));
        const bool alone = (k == 0 || path[k - 1].lambda > path[k].lambda * (1 + 1e-9)) &&
                           (k + 1 >= path.size() || path[k + 1].lambda < path[k].lambda * (1 - 1e-9));
        if (alone) REQUIRE(part[k].edge == path[k].edge);
      }
    }
  }
}

TEST_CASE("sls-iter: the number of levels falls as lambda grows", "[quant][sls]") {
  SparseL1 solver;
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const auto d = problem(seed, 300, seed % 2 == 0);
    const double most = SparseL1::lambda_max(data_of(d));
    std::size_t before = d.values.size();
    for (double part = 0x1p-40; part < 4; part *= 1.25) {
      const std::size_t levels = solver.solve(data_of(d), part * most).size();
      REQUIRE(levels <= before);
      before = levels;
    }
    REQUIRE(before == 1);
  }
}

TEST_CASE("sls-l1: scaling by a power of two and doubling the weights scale the path, bit for bit", "[quant][sls]") {
  SparseL1 solver;
  const auto d = problem(1, 2000, true);
  const auto span = solver.path(data_of(d), 300);
  const std::vector<VanishingEdge> path(span.begin(), span.end());
  for (const double scale : {0x1p-70, 0.5, 4.0, 0x1p60}) {
    auto other = d;
    for (double& u : other.values) u *= scale;
    for (double& a : other.weights) a *= 2;
    const auto again = solver.path(data_of(other), 300);
    for (std::size_t k = 0; k < path.size(); ++k) {
      REQUIRE(again[k].edge == path[k].edge);
      REQUIRE(again[k].lambda == path[k].lambda * scale * scale * 2);
    }
  }
}

TEST_CASE("sls-l1l2: positive lambda2: never above coordinate descent, and Newton's steps are few", "[quant][sls]") {
  for (const SecondPenalty penalty : {SecondPenalty::alpha, SecondPenalty::jump}) {
    SparseL1L2 solver(penalty);
    const bool jump = penalty == SecondPenalty::jump;
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
      const auto d = problem(seed, 1 + seed % 12, seed % 3 == 0);
      const double most = std::max(SparseL1::lambda_max(data_of(d)), 1e-300);
      for (const double part : {1e-3, 0.1, 0.8})
        for (const double second : {1e-3, 1.0}) {
          const double l1 = part * most, l2 = second * (jump ? 1.0 : most);
          const CellEnds ends = solver.solve(data_of(d), l1, l2);
          const Doubles x(solver.solution().begin(), solver.solution().end());
          const double mine = objective(d, x, l1, l2, jump, false);
          const double other = coordinate_descent(d, l1, l2, jump, false, 30);
          CAPTURE(seed, jump, part, second, mine - other, mine, solver.steps());
          REQUIRE(mine <= other * (1 + 1e-12) + 1e-300);
          REQUIRE(solver.steps() <= 30);
          REQUIRE(ends.front() == 0);
          REQUIRE(ends.back() == d.values.size());
        }
    }
  }
}

TEST_CASE("sls-l1l2: a second penalty that vanishes is l1; a positive one keeps more levels", "[quant][sls]") {
  SparseL1L2 solver;
  SparseL1 l1;
  std::mt19937_64 random(7);
  std::normal_distribution<double> normal;
  twin::Distinct d;
  for (int k = 0; k < 200; ++k) d.values.push_back(normal(random)), d.weights.push_back(1);
  std::ranges::sort(d.values);
  CellEnds plain;
  cell_ends(l1.solve(data_of(d), 0.01), plain);
  REQUIRE(solver.solve(data_of(d), 0.01, 0) == plain);
  REQUIRE(solver.solve(data_of(d), 0.01, 1e-12) == plain);
  std::size_t before = plain.size();
  for (const double second : {1e-3, 1e-2, 1e-1}) {
    const std::size_t now = solver.solve(data_of(d), 0.01, second).size();
    REQUIRE(now > before);
    before = now;
  }
  for (const std::size_t levels : {1, 2, 7, 16, 100}) {
    (void)solver.lambda_for(data_of(d), 1e-2, levels);
    REQUIRE(solver.ends().size() - 1 == levels);
  }
}

TEST_CASE("sls-l1l2: the convex limit lies between the least squared gap's bounds", "[quant][sls]") {
  SparseL1L2 solver;
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    twin::Distinct d = problem(seed, 3 + seed % 60, false);
    for (double& a : d.weights) a = 1;
    if (d.values.size() < 2) continue;
    double gap = std::numeric_limits<double>::infinity();
    for (std::size_t k = 1; k < d.values.size(); ++k) gap = std::min(gap, d.values[k] - d.values[k - 1]);
    const double limit = solver.convex_limit(data_of(d));
    CAPTURE(seed, gap, limit / (gap * gap));
    REQUIRE(limit >= gap * gap / 8 * (1 - 1e-9));
    REQUIRE(limit <= gap * gap / 2 * (1 + 1e-9));  // with the offset free the form is at most 1/2 of d^2
  }
}

TEST_CASE("sls-l1l2: negative lambda2 on ascending x: the objective is that of coordinate descent, where it ascends",
          "[quant][sls]") {
  int compared = 0;
  for (const SecondPenalty penalty : {SecondPenalty::alpha, SecondPenalty::jump})
    for (std::uint64_t seed = 0; seed < 80; ++seed) {
      SparseL1L2 solver(penalty);
      const bool jump = penalty == SecondPenalty::jump;
      const auto d = problem(seed, 2 + seed % 9, seed % 3 == 0);
      if (d.values.size() < 2) continue;
      const double l1 = 0.05 * SparseL1::lambda_max(data_of(d)), l2 = -0.5 * solver.convex_limit(data_of(d));
      (void)solver.solve(data_of(d), l1, l2);
      const Doubles x(solver.solution().begin(), solver.solution().end());
      REQUIRE(std::ranges::is_sorted(x));
      const double mine = objective(d, x, l1, l2, jump, false);
      bool ascends = false;
      const double other = coordinate_descent(d, l1, l2, jump, false, 300, &ascends);
      CAPTURE(seed, jump, mine, other, solver.steps());
      const double l1_alone =
          objective(d, x_of(SparseL1().solve(data_of(d), l1), d.values.size()), l1, l2, jump, false);
      REQUIRE(mine <= l1_alone * (1 + 1e-12));
      if (ascends) {
        REQUIRE(mine <= other + 1e-10 * std::abs(other));
        ++compared;
      }
      REQUIRE(solver.steps() < 2000);
    }
  REQUIRE(compared >= 80);
}
