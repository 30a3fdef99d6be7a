// l0, clustering, and the published ratios to the exact optimum.
#include <bit>
#include <catch2/catch.hpp>

#include "lmq/quant/partition.hpp"
#include "methods/sparse/sls_cluster.hpp"
#include "methods/sparse/sls_l0.hpp"
#include "methods/sparse/sls_l1.hpp"
#include "partition_twin.hpp"
#include "sls_samples.hpp"

using namespace lmq;

namespace {

double squared(const twin::Distinct& d, std::size_t i, std::size_t j, bool zero) {
  if (!zero) return static_cast<double>(twin::cell_loss(d.values, d.weights, i, j));
  twin::Wide sum = 0;
  for (std::size_t k = i; k < j; ++k) sum += twin::Wide{d.weights[k]} * d.values[k] * d.values[k];
  return static_cast<double>(sum);
}

/// Every way to cut the points into cells, one of which (or none: zero == m cells) may be pinned at 0.
/// visit(ends, pinned cell or -1, loss)
template <class Visit>
void all_partitions(const twin::Distinct& d, const Visit& visit) {
  const std::size_t m = d.values.size();
  for (std::uint32_t cuts = 0; cuts < (1u << (m - 1)); ++cuts) {
    CellEnds ends{0};
    for (std::uint32_t k = 1; k < m; ++k)
      if ((cuts >> (k - 1) & 1) != 0) ends.push_back(k);
    ends.push_back(static_cast<std::uint32_t>(m));
    const auto cells = static_cast<std::ptrdiff_t>(ends.size() - 1);
    for (std::ptrdiff_t pinned = -1; pinned < cells; ++pinned) {
      double loss = 0;
      for (std::ptrdiff_t t = 0; t < cells; ++t)
        loss += squared(d, ends[static_cast<std::size_t>(t)], ends[static_cast<std::size_t>(t) + 1], t == pinned);
      visit(static_cast<std::size_t>(cells), pinned, loss);
    }
  }
}

twin::Distinct shifted(std::uint64_t seed, std::size_t n, double shift) {
  auto d = problem(seed, n, seed % 3 == 0);
  double scale = 0;
  for (const double u : d.values) scale = std::max(scale, std::abs(u));
  for (double& u : d.values) u += shift * scale;
  d.values.erase(std::unique(d.values.begin(), d.values.end()), d.values.end());
  d.weights.resize(d.values.size());
  return d;
}

}  // namespace

TEST_CASE("sls-l0: equals brute force over all partitions and all places of the level 0", "[quant][sls]") {
  SparseL0 solver;
  int pinned_won = 0;
  for (std::uint64_t seed = 0; seed < 240; ++seed) {
    const auto d = shifted(seed, 1 + seed % 10, seed % 5 == 0 ? 0.0 : static_cast<double>(seed % 5) * 0.4 - 0.6);
    const SparseData data = data_of(d);
    double energy = 0;
    for (std::size_t k = 0; k < d.values.size(); ++k) energy += d.weights[k] * d.values[k] * d.values[k];
    const double slack = 1e-14 * energy;
    for (std::size_t levels = 2; levels <= 6; ++levels) {
      double off = 1e300, first = 1e300, exact = 1e300;
      all_partitions(d, [&](std::size_t cells, std::ptrdiff_t pinned, double loss) {
        if (pinned < 0 && cells <= levels) off = std::min(off, loss);
        // ||alpha||_0 <= levels - 1. alpha_1's column vanishes when u_1 is 0: then x_1 is 0.
        if (pinned < 0 && cells <= levels - 1 && d.values[0] != 0) first = std::min(first, loss);
        if (pinned == 0 && cells <= levels) first = std::min(first, loss);
        if (cells <= (pinned < 0 ? levels - 1 : levels)) exact = std::min(exact, loss);
      });
      CAPTURE(seed, levels, d.values.size());
      (void)solver.solve(data, levels, ZeroLevel::off);
      REQUIRE(solver.loss(data) <= off + slack);
      (void)solver.solve(data, levels, ZeroLevel::first);
      CAPTURE(solver.loss(data), first);
      REQUIRE(solver.loss(data) <= first + slack);
      REQUIRE(solver.loss(data) >= first - slack);
      if (solver.zero_cell() == 0) ++pinned_won;
      const CellEnds ends = solver.solve(data, levels, ZeroLevel::exact);
      CAPTURE(solver.loss(data), exact);
      REQUIRE(solver.loss(data) <= exact + slack);
      REQUIRE(solver.loss(data) >= exact - slack);
      REQUIRE(ends.size() - 1 <= levels);
      REQUIRE(solver.zero_cell() >= 0);
    }
  }
  REQUIRE(pinned_won > 50);
}

TEST_CASE("sls-l0: the penalised problem equals brute force over all partitions", "[quant][sls]") {
  SparseL0 solver;
  for (std::uint64_t seed = 0; seed < 240; ++seed) {
    const auto d = shifted(seed, 1 + seed % 9, seed % 4 == 0 ? 0.0 : static_cast<double>(seed % 4) * 0.4 - 0.6);
    const SparseData data = data_of(d);
    double energy = 0;
    for (std::size_t k = 0; k < d.values.size(); ++k) energy += d.weights[k] * d.values[k] * d.values[k];
    for (const double part : {1e-4, 0.01, 0.2, 3.0}) {
      const double lambda = part * energy + 1e-300;
      double off = 1e300, first = 1e300, exact = 1e300;
      all_partitions(d, [&](std::size_t cells, std::ptrdiff_t pinned, double loss) {
        const double price = loss + lambda * static_cast<double>(pinned < 0 ? cells : cells - 1);
        if (pinned < 0) off = std::min(off, price);
        if (pinned == 0 || (pinned < 0 && d.values[0] != 0)) first = std::min(first, price);
        exact = std::min(exact, price);
      });
      for (const auto& [zero, best] :
           {std::pair{ZeroLevel::off, off}, {ZeroLevel::first, first}, {ZeroLevel::exact, exact}}) {
        const CellEnds ends = solver.solve_penalised(data, lambda, zero);
        const double free = static_cast<double>(ends.size()) - (solver.zero_cell() >= 0 ? 2 : 1);
        CAPTURE(seed, part, static_cast<int>(zero), best);
        REQUIRE(solver.loss(data) + lambda * free == Approx(best).epsilon(1e-12).margin(1e-14 * energy));
      }
    }
  }
}

TEST_CASE("sls-cluster: is a local optimum of the seed, never below the exact one", "[quant][sls]") {
  SeededLloyd lloyd;
  PartitionSolver exact;
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    const auto d = problem(seed, 500, seed % 2 == 0);
    for (const std::size_t levels : {2, 16, 64}) {
      const CellEnds ends = lloyd.solve(data_of(d), levels, seed, 1000, 1);
      const CellEnds again = SeededLloyd().solve(data_of(d), levels, seed, 1000, 1);
      REQUIRE(ends == again);
      const double found = twin::loss_of(d.values, d.weights, ends);
      (void)exact.solve(d.values, d.weights, levels);
      REQUIRE(ends.size() - 1 <= levels);
      REQUIRE(exact.loss() <= found * (1 + 1e-12) + 1e-300);
      const double four = twin::loss_of(d.values, d.weights, lloyd.solve(data_of(d), levels, seed, 1000, 4));
      CAPTURE(seed, levels, four - found, found);
      double energy = 0;  // losses are compared by sums of doubles
      for (std::size_t k = 0; k < d.values.size(); ++k) energy += d.weights[k] * d.values[k] * d.values[k];
      REQUIRE(four <= found + 1e-14 * energy);
    }
  }
}

// More than 40 lines: the table of published ratios.
TEST_CASE("sls: published ratios to the exact optimum on the analytic BF16 histogram", "[quant][sls]") {
  twin::Distinct d;
  const auto add = [&](float v, std::uint32_t bits) {
    const double z = double{v} / 0.02, pdf = std::exp(-0.5 * z * z) / (0.02 * std::sqrt(2 * 3.14159265358979323846));
    const double count = std::floor(16777216.0 * pdf * std::ldexp(1.0, static_cast<int>(bits >> 7) - 134) + 0.5);
    if (count > 0) d.values.push_back(v), d.weights.push_back(count);
  };
  for (std::uint32_t bits = 0x7F7F; bits >= 0x0080; --bits) add(-std::bit_cast<float>(bits << 16), bits);
  for (std::uint32_t bits = 0x0080; bits < 0x7F80; ++bits) add(std::bit_cast<float>(bits << 16), bits);
  REQUIRE(d.values.size() == 4766);
  const Doubles ones(d.values.size(), 1.0);
  SparseL1 solver;
  PartitionSolver exact;
  CellEnds ends;
  struct Row {
    std::size_t levels;
    double ones, counts;
  };
  // A cost in 113 bits: at 4096 levels the loss, 6.7e-14, is far below what sums of doubles lose of an energy of 6711
  // (with those the ratio seems to be 2.8).
  const std::size_t m = d.values.size();
  std::vector<twin::Wide> A(m + 1, 0), B(m + 1, 0), C(m + 1, 0);
  for (std::size_t k = 0; k < m; ++k) {
    const twin::Wide a = d.weights[k], u = d.values[k];
    A[k + 1] = A[k] + a, B[k + 1] = B[k] + a * u, C[k + 1] = C[k] + a * u * u;
  }
  const auto cost = [&](std::size_t i, std::size_t j) {
    const twin::Wide b = B[j] - B[i], loss = C[j] - C[i] - b * b / (A[j] - A[i]);
    return j > i + 1 && loss > 0 ? static_cast<double>(loss) : 0.0;
  };
  const auto ratio = [&](std::span<const double> stage, std::size_t levels, double best) {
    cell_ends(solver.path({d.values, stage}, levels), levels, m, ends);
    return twin::loss_of(d.values, d.weights, ends) / best;
  };
  for (const Row row :
       {Row{4, 6.3, 1.5}, {16, 56, 14}, {64, 200, 66}, {256, 3037, 617}, {1024, 309, 613}, {4096, 368, 425}}) {
    const double best = twin::loss_of(d.values, d.weights, lagrangian_partition(cost, m, row.levels));
    (void)exact.solve(d.values, d.weights, row.levels);
    CAPTURE(row.levels);
    REQUIRE(exact.loss() == Approx(best).epsilon(1e-9));
    REQUIRE(ratio(ones, row.levels, best) == Approx(row.ones).epsilon(0.005));
    REQUIRE(ratio(d.weights, row.levels, best) == Approx(row.counts).epsilon(row.counts < 10 ? 0.03 : 0.04));
  }
}
