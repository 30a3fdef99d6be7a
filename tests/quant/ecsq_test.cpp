#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <numeric>
#include <random>

#include "lmq/quant/partition.hpp"
#include "methods/ecsq/entropy_fit.hpp"
#include "rate_samples.hpp"

using namespace lmq;

namespace {

/// A few points with counts and, where wanted, importance of their own; perhaps a heap of zeros.
Group few_points(std::size_t points, bool weighted, bool zeros, unsigned seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  std::vector<float> values(points);
  for (float& value : values) value = static_cast<float>(normal(random));
  if (zeros) values[points / 2] = 0;
  std::ranges::sort(values);
  std::vector<double> counts(points), mass(points);
  for (std::size_t k = 0; k < points; ++k) {
    counts[k] = values[k] == 0 ? 500 : static_cast<double>(1 + random() % 20);
    mass[k] = weighted ? counts[k] * std::exp(normal(random)) : counts[k];
  }
  return rate_samples::group_of(values, counts, mass);
}

/// D + lambda H of a partition, from the points themselves.
double plain_price(const Group& group, std::size_t zero, const std::vector<std::uint32_t>& ends, double lambda) {
  double price = 0, all = 0;
  for (const double count : group.count) all += count;
  for (std::size_t t = 1; t < ends.size(); ++t) {
    double mass = 0, first = 0, count = 0;
    for (std::size_t k = ends[t - 1]; k < ends[t]; ++k)
      mass += group.mass[k], first += group.mass[k] * group.mean[k], count += group.count[k];
    const double level = ends[t - 1] <= zero && zero < ends[t] ? 0.0 : first / mass;
    for (std::size_t k = ends[t - 1]; k < ends[t]; ++k)
      price += group.mass[k] * (group.mean[k] - level) * (group.mean[k] - level);
    price += lambda * count * std::log2(all / count);
  }
  return price;
}

double brute_force(const Group& group, std::size_t zero, double lambda) {
  const std::size_t m = group.size();
  double best = std::numeric_limits<double>::infinity();
  for (std::uint32_t cuts = 0; cuts < 1u << (m - 1); ++cuts) {
    std::vector<std::uint32_t> ends{0};
    for (std::uint32_t k = 1; k < m; ++k)
      if ((cuts >> (k - 1) & 1) != 0) ends.push_back(k);
    ends.push_back(static_cast<std::uint32_t>(m));
    best = std::min(best, plain_price(group, zero, ends, lambda));
  }
  return best;
}

/// Every assignment of points to cells, intervals or not.
double all_assignments(const Group& group, double lambda) {
  const std::size_t m = group.size();
  std::vector<std::size_t> cell(m, 0);
  double all = 0, best = std::numeric_limits<double>::infinity();
  for (const double count : group.count) all += count;
  for (;;) {
    std::vector<double> mass(m, 0.0), first(m, 0.0), second(m, 0.0), count(m, 0.0);
    for (std::size_t k = 0; k < m; ++k) {
      const double v = group.mean[k], h = group.mass[k];
      mass[cell[k]] += h, first[cell[k]] += h * v, second[cell[k]] += h * v * v, count[cell[k]] += group.count[k];
    }
    double price = 0;
    for (std::size_t c = 0; c < m; ++c)
      if (count[c] > 0)
        price += second[c] - first[c] * first[c] / mass[c] + lambda * count[c] * std::log2(all / count[c]);
    best = std::min(best, price);
    std::size_t at = m;  // the next restricted growth string
    while (at-- > 1) {
      const std::size_t most = 1 + *std::max_element(cell.begin(), cell.begin() + static_cast<std::ptrdiff_t>(at));
      if (cell[at] < most) break;
      cell[at] = 0;
    }
    if (at == 0) return best;
    ++cell[at];
  }
}

IntervalCode kmeans_code(const Group& group, const RateSums& line, std::size_t levels) {
  PartitionSolver solver;
  const auto ends = solver.solve_group(group, levels);
  return interval_code(line, {ends.begin(), ends.end()});
}

constexpr std::array kLambdas{1e-4, 0.003, 0.03, 0.1, 0.3, 1.0, 5.0};

}  // namespace

TEST_CASE("ecsq: the interval optimum equals brute force over all interval codes, pinned zeros and weights too") {
  IntervalSearch search;
  for (unsigned seed = 0; seed < 40; ++seed)
    for (const std::size_t points : {1, 2, 3, 7, 10})
      for (const bool weighted : {false, true}) {
        const Group group = few_points(points, weighted, seed % 3 == 0 && points > 1, seed);
        for (const ZeroRule rule : {ZeroRule::automatic, ZeroRule::off}) {
          const RateSums line(group, rule);
          for (const double lambda : kLambdas) {
            CAPTURE(seed, points, weighted, lambda, static_cast<int>(rule));
            const IntervalCode code = search.exact(line, lambda);
            const double best = brute_force(group, line.zero, lambda);
            REQUIRE(plain_price(group, line.zero, code.ends, lambda) <=
                    best + 1e-11 * (line.energy + lambda * line.count));
            REQUIRE(code.price(lambda) == Approx(best).margin(1e-11 * (line.energy + lambda * line.count)));
          }
        }
      }
}

TEST_CASE("ecsq: with equal importance no code at all is better than the best interval code") {
  IntervalSearch search;
  for (unsigned seed = 0; seed < 12; ++seed) {
    const Group group = few_points(7, false, false, 100 + seed);
    const RateSums line(group, ZeroRule::off);
    for (const double lambda : kLambdas)
      REQUIRE(search.exact(line, lambda).price(lambda) == Approx(all_assignments(group, lambda)).margin(1e-10));
  }
}

TEST_CASE("ecsq: the published constants of a normal source in BF16") {
  const Group group = rate_samples::bf16_normal(24);
  REQUIRE(group.size() == 4766);
  const RateSums line(group);
  REQUIRE(line.zero == line.points);
  struct Known {
    double lambda, cells, bits, error;
  };
  IntervalSearch search;
  for (const Known known : {Known{0.3, 5, 1.3514, 0.217898}, Known{0.03, 20, 3.0177, 0.021690},
                            Known{0.003, 62, 4.6694, 0.002193}, Known{0.0003, 205, 6.3607, 0.000208}}) {
    CAPTURE(known.lambda);
    const double lambda = known.lambda * 4e-4;
    const IntervalCode code = search.exact(line, lambda), quick = search.quick(line, lambda);
    CHECK(static_cast<double>(code.cells()) == known.cells);
    CHECK(code.bits / line.count == Approx(known.bits).margin(6e-5));
    CHECK(code.distortion / line.mass / 4e-4 == Approx(known.error).margin(6e-7));
    CHECK(quick.price(lambda) >= code.price(lambda) * (1 - 1e-12));
    CHECK(quick.price(lambda) <= code.price(lambda) * (1 + 1e-4));
  }
}

TEST_CASE("ecsq: reference points of normal and Laplace sources, gap to the Gaussian bound") {
  EntropyFitter fitter;
  const Group group = rate_samples::bf16_normal(24);
  const RateSums line(group);
  for (const auto& [rate, error, gap] :
       {std::array{1.0, 0.349, 1.44}, std::array{1.997, 0.0893, 1.53}, std::array{2.999, 0.0223, 1.53}}) {
    const EntropyCode found = fitter.fit(line, {.rate = rate});
    const double H = found.found.code.bits / line.count, D = found.found.code.distortion / line.energy;
    CAPTURE(rate, H, D);
    CHECK(H <= rate);
    CHECK(H > rate - 4e-3);
    CHECK(D == Approx(error).epsilon(6e-3));
    CHECK(6.0206 * H + 10 * std::log10(D) == Approx(gap).margin(0.012));
  }
}

TEST_CASE("ecsq: no other interval code is cheaper at the same lambda") {
  EntropyFitter fitter;
  IntervalSearch search;
  for (unsigned seed = 0; seed < 6; ++seed)
    for (const bool weighted : {false, true}) {
      const Group group = seed == 5 ? rate_samples::bf16_normal(16) : few_points(300, weighted, seed % 2 == 1, seed);
      const RateSums line(group);
      for (const double slope : {0.0003, 0.003, 0.03, 0.3}) {
        const double lambda = slope * line.energy / line.count;
        const double best = search.exact(line, lambda).price(lambda), slack = 1e-11 * line.energy;
        CAPTURE(seed, weighted, slope);
        for (const EcsqAlgorithm way : {EcsqAlgorithm::iterative, EcsqAlgorithm::uniform})
          for (const bool quick : {false, true})
            REQUIRE(best <= fitter.at(line, {.way = way}, lambda, quick).found.code.price(lambda) + slack);
        if (line.zero == line.points)
          for (const std::size_t levels : {2, 3, 8, 30, 100})
            REQUIRE(best <= kmeans_code(group, line, levels).price(lambda) + slack);
        for (const double step : {0.003, 0.02, 0.3, 1.0})
          for (const bool on_cut : {false, true})
            REQUIRE(best <= interval_code(line, uniform_cells(line, step, on_cut, 1000)).price(lambda) + slack);
      }
    }
}

TEST_CASE("ecsq-iter: never dearer than its starts in either form, and the best of all of them") {
  IntervalSearch search;
  EntropyFitter fitter;
  for (unsigned seed = 0; seed < 30; ++seed) {
    const Group group = few_points(seed % 2 == 0 ? 40 : 300, seed % 3 == 0, seed % 5 == 0, seed);
    const RateSums line(group);
    for (const double slope : {0.001, 0.03, 0.3}) {
      const double lambda = slope * line.energy / line.count;
      for (const LengthForm form : {LengthForm::entropy, LengthForm::huffman}) {
        const auto price = [&](const IntervalCode& code) {
          return code.distortion + lambda * bits_in_form(line, code.ends, form);
        };
        const IntervalCode a = search.exact(line, lambda);
        const IntervalCode b = best_uniform(line, {lambda, CutRule::grid, 256, -1}).code;
        const IntervalCode from_a = iterate_intervals(line, a, lambda, form),
                           from_b = iterate_intervals(line, b, lambda, form);
        REQUIRE(price(from_a) <= price(a));
        REQUIRE(price(from_b) <= price(b));
        const EntropyCode found = fitter.at(line, {.way = EcsqAlgorithm::iterative, .form = form}, lambda, false);
        REQUIRE(price(found.found.code) <= std::min(price(from_a), price(from_b)));
        const double huffman = bits_in_form(line, a.ends, LengthForm::huffman);
        REQUIRE(huffman >= a.bits * (1 - 1e-12));
        if (a.cells() > 1) REQUIRE(huffman < a.bits + line.count);
        REQUIRE(bits_in_form(line, a.ends, LengthForm::entropy) == Approx(a.bits).margin(1e-9));
      }
    }
  }
}

TEST_CASE("ecsq: cells by rate are those of least price for each point, or the best intervals") {
  for (unsigned seed = 0; seed < 40; ++seed) {
    const bool weighted = seed % 2 == 1;
    const Group group = few_points(9, weighted, false, seed);
    const RateSums line(group, ZeroRule::off);
    const std::vector<double> levels{-1.2, -0.3, 0.1, 0.9}, bits{3.0, 1.5, 1.0, seed % 5 == 0 ? 9.0 : 3.0};
    const double lambda = 0.2;
    const auto price = [&](std::size_t k, std::size_t l) {
      const double e = group.mean[k] - levels[l];
      return group.mass[k] * e * e + lambda * group.count[k] * bits[l];
    };
    double best = std::numeric_limits<double>::infinity();  // over all ascending assignments
    for (std::size_t code = 0; code < 1u << 18; ++code) {
      double sum = 0;
      std::size_t before = 0;
      for (std::size_t k = 0; k < 9; ++k) {
        const std::size_t l = code >> (2 * k) & 3;
        if (l < before) {
          sum = std::numeric_limits<double>::infinity();
          break;
        }
        before = l;
        sum += price(k, l);
      }
      best = std::min(best, sum);
    }
    const auto ends = assign_by_rate(line, levels, bits, lambda);
    double sum = 0;
    for (std::size_t t = 1; t < ends.size(); ++t) {
      double cell = std::numeric_limits<double>::infinity();
      for (std::size_t l = 0; l < 4; ++l) {
        double one = 0;
        for (std::size_t k = ends[t - 1]; k < ends[t]; ++k) one += price(k, l);
        cell = std::min(cell, one);
      }
      sum += cell;
    }
    CAPTURE(seed);
    REQUIRE(sum == Approx(best).epsilon(1e-12));
  }
}

TEST_CASE("ecsq: rates are met from below, fewer bits at larger slopes, and never more levels than allowed") {
  EntropyFitter fitter;
  const Group group = rate_samples::bf16_normal(22);
  const RateSums line(group);
  for (const EcsqAlgorithm way : {EcsqAlgorithm::exact, EcsqAlgorithm::iterative, EcsqAlgorithm::uniform})
    for (const double rate : {0.05, 0.5, 1.0, 2.3, 4.0, 6.5, 7.6}) {
      if (way != EcsqAlgorithm::exact && rate > 7) continue;  // the outermost of 256 equal steps are merged
      const EntropyCode found = fitter.fit(line, {.way = way, .rate = rate});
      const double H = found.found.code.bits / line.count;
      CAPTURE(static_cast<int>(way), rate, H, found.found.code.cells());
      CHECK(H <= rate);
      CHECK(H >= rate - 7e-3);
      CHECK(found.found.code.cells() <= 256);
    }
  IntervalSearch search;
  double bits = 1e300, error = -1;
  for (double lambda = 1e-8; lambda < 1; lambda *= 1.7) {
    const IntervalCode code = search.exact(line, lambda, 100);
    CHECK(code.cells() <= 100);
    if (code.cells() == 100) continue;
    CHECK(code.bits <= bits * (1 + 1e-12));
    CHECK(code.distortion >= error * (1 - 1e-12));
    bits = code.bits, error = code.distortion;
  }
  CHECK(search.exact(line, 1e3).cells() == 1);
}

TEST_CASE("ecsq-uniform: a few codes more than 32 become 32 where that costs nothing") {
  EntropyFitter fitter;
  const RateSums line(rate_samples::bf16_normal(24));
  const EntropyCode found = fitter.fit(line, {.way = EcsqAlgorithm::uniform, .rate = 4});
  CHECK(found.found.code.cells() == 32);
  const double H = found.found.code.bits / line.count, D = found.found.code.distortion / line.energy;
  CHECK(H + 0.5 * std::log2(D) < 0.2545);  // the gap to the Gaussian bound
}

TEST_CASE("ecsq: exact zeros that stand out keep the level 0") {
  const Group pruned = few_points(200, true, true, 3);
  const RateSums line(pruned);
  REQUIRE(line.zero < line.points);
  REQUIRE(pruned.low[line.zero] == 0);
  EntropyFitter fitter;
  for (const EcsqAlgorithm way : {EcsqAlgorithm::exact, EcsqAlgorithm::iterative, EcsqAlgorithm::uniform})
    for (const double rate : {0.4, 1.0, 3.0}) {
      const auto levels = interval_levels(line, fitter.fit(line, {.way = way, .rate = rate}).found.code.ends);
      REQUIRE(std::ranges::count(levels, 0.0) == 1);
      REQUIRE(std::ranges::is_sorted(levels));
    }
  REQUIRE(RateSums(pruned, ZeroRule::off).zero == pruned.size());
  REQUIRE(RateSums(few_points(200, false, false, 3), ZeroRule::on).zero == 200);  // there are none
}

TEST_CASE("ecsq: values or weights times a power of two, or the data twice, give the same cells") {
  EntropyFitter fitter;
  const Group group = few_points(500, true, false, 8);
  Group scaled = group, twice = group, heavy = group;
  for (std::size_t k = 0; k < group.size(); ++k) {
    scaled.low[k] *= 8, scaled.high[k] *= 8, scaled.mean[k] *= 8;
    twice.count[k] *= 2, twice.mass[k] *= 2;
    heavy.mass[k] *= 4;
  }
  for (const EcsqAlgorithm way : {EcsqAlgorithm::exact, EcsqAlgorithm::iterative, EcsqAlgorithm::uniform})
    for (const double rate : {0.7, 3.0}) {
      const EcsqOptions wish{.way = way, .rate = rate};
      const auto ends = fitter.fit(RateSums(group), wish).found.code.ends;
      CHECK(fitter.fit(RateSums(scaled), wish).found.code.ends == ends);
      CHECK(fitter.fit(RateSums(twice), wish).found.code.ends == ends);
      CHECK(fitter.fit(RateSums(heavy), wish).found.code.ends == ends);
    }
}
