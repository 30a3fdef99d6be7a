// The numerics of binary codes against enumeration of all codes, closed forms and each other.
#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>

#include "binary_losses.hpp"
#include "lmq/kernels/binary_scan.hpp"
#include "lmq/kernels/sort_network.hpp"
#include "partition_twin.hpp"

using namespace lmq;
using namespace lmq::binary_losses;

namespace {

/// Least loss over all codes of n weights with `choices` codes each, where fit(code) gives the gain of a code: the part
/// of the energy that the best scale for it explains.
double least_loss(std::span<const float> x, std::span<const float> w, unsigned choices,
                  const std::function<double(std::span<const unsigned>)>& gain) {
  std::vector<unsigned> code(x.size(), 0);
  double energy = 0, most = 0;
  for (std::size_t i = 0; i < x.size(); ++i) energy += double{w[i]} * double{x[i]} * double{x[i]};
  for (bool more = true; more;) {
    most = std::max(most, gain(code));
    more = false;
    for (unsigned& c : code) {
      if (++c < choices) {
        more = true;
        break;
      }
      c = 0;
    }
  }
  return std::max(0.0, energy - most);
}

/// (sum w x c)^2 / sum w c^2: what the code c explains with one free scale.
double one_scale(std::span<const float> x, std::span<const float> w, std::span<const unsigned> code,
                 const std::function<double(unsigned)>& of) {
  double xc = 0, cc = 0;
  for (std::size_t i = 0; i < x.size(); ++i)
    xc += double{w[i]} * x[i] * of(code[i]), cc += w[i] * of(code[i]) * of(code[i]);
  return cc > 0 ? xc * xc / cc : 0;
}

/// The same for two free scales of the signs in bits 0 and 1.
double two_scales(std::span<const float> x, std::span<const float> w, std::span<const unsigned> code) {
  double whole = 0, cross = 0, b1 = 0, b2 = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double s1 = code[i] & 1 ? 1 : -1, s2 = code[i] & 2 ? 1 : -1;
    whole += w[i], cross += w[i] * s1 * s2;
    b1 += double{w[i]} * x[i] * s1, b2 += double{w[i]} * x[i] * s2;
  }
  const double determinant = whole * whole - cross * cross;
  if (determinant < 1e-9 * whole * whole) return whole > 0 ? b1 * b1 / whole : 0;
  return (whole * (b1 * b1 + b2 * b2) - 2 * cross * b1 * b2) / determinant;
}

struct Sample {
  std::vector<float> x, w;
};
Sample sample(std::size_t n, int kind, bool weighted, std::uint64_t seed) {
  Sample made{twin::draw(kind % 2 == 0 ? twin::Source::normal : twin::Source::laplace, n, seed),
              std::vector<float>(n, 1.0f)};
  if (weighted) made.w = twin::random_weights(n, seed + 1);
  if (kind == 2)
    for (float& value : made.x) value = std::round(2 * value);  // ties
  if (kind == 3 && n > 1) made.x[0] = 0;
  return made;
}
std::span<const float> weights_of(const Sample& made, bool weighted) {
  return weighted ? std::span<const float>(made.w) : std::span<const float>{};
}

double energy_of(const Sample& made) {
  double energy = 0;
  for (std::size_t i = 0; i < made.x.size(); ++i) energy += double{made.w[i]} * made.x[i] * made.x[i];
  return energy;
}

/// Loss of magnitudes that go to the nearest of `levels`.
double loss_of(const Sample& made, std::vector<double> levels) {
  double loss = 0;
  for (std::size_t i = 0; i < made.x.size(); ++i) {
    double least = INFINITY;
    for (const double level : levels) least = std::min(least, std::pow(std::fabs(double{made.x[i]}) - level, 2));
    loss += made.w[i] * least;
  }
  return loss;
}
}  // namespace

TEST_CASE("binary: networks sort keys and items of every size, the same in every instruction set") {
  std::array<const SortNetwork*, 4> sets{};
  const std::size_t count = sort_network_sets(sets.data(), sets.size());
  for (std::size_t size = 16; size <= 8192; size *= 2) {
    const auto x = twin::draw(twin::Source::normal, size, size);
    std::vector<std::int32_t> keys(size);
    std::vector<std::int64_t> items(size);
    for (std::size_t i = 0; i < size; ++i) {
      keys[i] = static_cast<std::int32_t>(x[i] * 1000) % 97;
      items[i] = (std::int64_t{keys[i]} << 32) + static_cast<std::int64_t>(i);
    }
    auto sorted_keys = keys;
    auto sorted_items = items;
    std::ranges::sort(sorted_keys), std::ranges::sort(sorted_items);
    for (std::size_t s = 0; s < count; ++s) {
      auto k = keys;
      auto i = items;
      sets[s]->keys(k.data(), size), sets[s]->items(i.data(), size);
      REQUIRE(k == sorted_keys);
      REQUIRE(i == sorted_items);
    }
  }
}

TEST_CASE("binary: scans give the same bits in every instruction set and equal the plain loop") {
  std::array<const BinaryScans*, 4> sets{};
  const std::size_t count = binary_scan_sets(sets.data(), sets.size());
  for (std::size_t n : {1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 128, 129, 1000})
    for (const bool weighted : {false, true}) {
      const Sample made = sample(n, static_cast<int>(n % 4), weighted, n);
      MagnitudeScratch scratch;
      const Magnitudes& y = sorted_magnitudes(made.x, weights_of(made, weighted), scratch);
      Split two{0, 0}, top{-1, 0};
      const double whole = y.mass[n], total = y.sum[n], mean = total / whole;
      for (std::size_t i = 0; i < n; ++i) {
        const double a = y.mass[i], b = y.sum[i], d = b - a * mean;
        if (i > 0 && d * d / (a * (whole - a)) > two.gain) two = {d * d / (a * (whole - a)), i};
        if ((total - b) * (total - b) / (whole - a) > top.gain) top = {(total - b) * (total - b) / (whole - a), i};
      }
      const float* w = weighted ? made.w.data() : nullptr;
      const double sum = sets[0]->magnitude_sum(made.x.data(), w, n);
      REQUIRE(sum == Approx(total).epsilon(1e-6));
      for (std::size_t s = 0; s < count; ++s) {
        const Split found = sets[s]->two_means(y.mass.data(), y.sum.data(), n);
        REQUIRE(found.gain == two.gain);
        REQUIRE(found.index == two.index);
        const Split above = sets[s]->top_mean(y.mass.data(), y.sum.data(), n);
        REQUIRE(above.gain == top.gain);
        REQUIRE(above.index == top.index);
        REQUIRE(sets[s]->magnitude_sum(made.x.data(), w, n) == sum);
      }
    }
}

TEST_CASE("binary: 1 bit, ternary and 2 bits equal the best of all 2^n, 3^n and 4^n codes") {
  MagnitudeScratch scratch;
  for (std::size_t n = 1; n <= 9; ++n)
    for (int kind = 0; kind < 4; ++kind)
      for (const bool weighted : {false, true})
        for (std::uint64_t trial = 0; trial < (n < 8 ? 4 : 1); ++trial) {
          const Sample made = sample(n, kind, weighted, 1000 * n + 10 * trial + static_cast<std::uint64_t>(kind));
          const auto w = weights_of(made, weighted);
          const Magnitudes& y = sorted_magnitudes(made.x, w, scratch);
          const double tolerance = 1e-8 * energy_of(made) + 1e-300;
          CAPTURE(n, kind, weighted, trial);
          const double one = least_loss(made.x, made.w, 2, [&](auto code) {
            return one_scale(made.x, made.w, code, [](unsigned c) { return c ? 1.0 : -1.0; });
          });
          REQUIRE(std::fabs(loss_of(made, {one_bit(y)}) - one) <= tolerance);
          const double three = least_loss(made.x, made.w, 3, [&](auto code) {
            return one_scale(made.x, made.w, code, [](unsigned c) { return c - 1.0; });
          });
          REQUIRE(std::fabs(loss_of(made, {0, top_mean(y)}) - three) <= tolerance);
          const TwoMeans two = two_means(y);
          const double four =
              least_loss(made.x, made.w, 4, [&](auto code) { return two_scales(made.x, made.w, code); });
          REQUIRE(std::fabs(loss_of(made, {two.low, two.high}) - four) <= tolerance);
        }
}

TEST_CASE("binary: asymmetric ternary is the best of all 3^n codes with two free levels") {
  MagnitudeScratch scratch;
  for (std::size_t n = 1; n <= 8; ++n)
    for (int kind = 0; kind < 4; ++kind) {
      const Sample made = sample(n, kind, true, 77 * n + static_cast<std::uint64_t>(kind));
      const double a = top_mean(sorted_side(made.x, made.w, true, scratch));
      const double b = top_mean(sorted_side(made.x, made.w, false, scratch));
      double loss = 0;
      for (std::size_t i = 0; i < n; ++i) {
        const double x = made.x[i];
        loss += made.w[i] * std::min({x * x, (x + a) * (x + a), (x - b) * (x - b)});
      }
      const double best = least_loss(made.x, made.w, 3, [&](auto code) {
        double gain = 0;
        for (const unsigned c : {0u, 2u}) {  // a level of the wrong sign is no gain: 0 is there
          double sum = 0;
          for (std::size_t i = 0; i < n; ++i) sum += code[i] == c ? double{made.w[i]} * made.x[i] : 0.0;
          if (c == 0 ? sum < 0 : sum > 0)
            gain += one_scale(made.x, made.w, code, [&](unsigned other) { return other == c ? 1.0 : 0.0; });
        }
        return gain;
      });
      REQUIRE(std::fabs(loss - best) <= 1e-8 * energy_of(made) + 1e-300);
    }
}

TEST_CASE(
    "binary: losses are ordered: exact 2 <= ternary, greedy 2 <= 1 bit; ternary <= 1 bit; more bases, less loss") {
  MagnitudeScratch scratch;
  for (std::size_t n : {1, 2, 5, 16, 32, 128, 1000})
    for (int kind = 0; kind < 4; ++kind)
      for (const bool weighted : {false, true}) {
        const Sample made = sample(n, kind, weighted, 31 * n + static_cast<std::uint64_t>(kind));
        const Magnitudes& y = sorted_magnitudes(made.x, weights_of(made, weighted), scratch);
        const double e = 1e-10 * y.energy, one = loss_of_bases(y, std::array{one_bit(y)});
        const double two = two_loss(y) * y.energy, three = ternary_loss(y) * y.energy;
        if (y.energy == 0) continue;
        CHECK(two <= three + e);
        CHECK(three <= one + e);
        double before = one, greedy_before = one;
        for (std::size_t k = 2; k <= 8; ++k) {
          const double greedy = greedy_loss(y, k) * y.energy;
          CHECK(greedy <= greedy_before + e);
          std::vector<double> v(k), residual;
          greedy_bases(y, v, residual);
          CHECK(loss_of_bases(y, v) <= greedy + e);  // the nearest sum is never worse than greedy signs
          const double refined = best_refined(y, v, residual);
          CHECK(refined <= greedy + e);
          CHECK(std::ranges::is_sorted(v, std::greater<>()));
          CHECK(v.back() >= 0);
          CHECK(loss_of_bases(y, v) == Approx(refined).margin(e));
          if (k == 2) CHECK(refined == Approx(two).margin(e));
          greedy_before = greedy, before = std::min(before, refined);
        }
      }
}

TEST_CASE("binary: every step of refinement lowers the loss or keeps it") {
  MagnitudeScratch scratch;
  for (std::size_t k = 1; k <= 8; ++k)
    for (std::uint64_t seed = 0; seed < 12; ++seed) {
      const Sample made = sample(seed % 3 == 0 ? 20 : 500, static_cast<int>(seed % 4), seed % 2 == 1, seed + 5);
      const Magnitudes& y = sorted_magnitudes(made.x, weights_of(made, seed % 2 == 1), scratch);
      std::vector<double> v(k), residual;
      greedy_bases(y, v, residual);
      double loss = refine_step(y, v);
      for (int step = 0; step < 30; ++step) {
        const double next = refine_step(y, v);
        REQUIRE(next <= loss + 1e-12 * y.energy);
        loss = next;
      }
    }
}

TEST_CASE("binary: refinement of normal weights reaches the figures of alternation") {
  const auto x = twin::draw(twin::Source::normal, 20'000, 3);
  MagnitudeScratch scratch;
  const Magnitudes& y = sorted_magnitudes(x, {}, scratch);
  std::vector<double> residual, three(3), four(4);
  CHECK(best_refined(y, three, residual) / y.energy < 0.0360);
  CHECK(best_refined(y, four, residual) / y.energy < 0.0102);
}

TEST_CASE("binary: greedy bases need not descend, and thresholds are where greedy signs change") {
  MagnitudeScratch scratch;
  const std::vector<float> x{0, 0, 0, 4};
  std::vector<double> v(2), residual;
  greedy_bases(sorted_magnitudes(x, {}, scratch), v, residual);
  CHECK(v == std::vector<double>{1, 1.5});
  const std::vector<double> bases{1, 0.5, 0.125};
  const auto thresholds = greedy_thresholds(bases);
  CHECK(thresholds == std::vector<double>{0.5, 1, 1.5});
  const auto code = [&](double r) {
    unsigned signs = 0;
    for (const double base : bases) signs = 2 * signs + (r >= 0), r += r >= 0 ? -base : base;
    return signs;
  };
  for (double y = 0.01; y < 2; y += 0.01) {
    const bool changes = code(y) != code(y + 0.01);
    const auto inside = std::ranges::upper_bound(thresholds, y);
    CHECK(changes == (inside != thresholds.end() && *inside <= y + 0.01));
  }
}

TEST_CASE("binary: equal magnitudes, zeros, one weight, weights zero on the upper tail") {
  MagnitudeScratch scratch;
  std::vector<double> residual;
  const std::vector<float> equal{2.5f, -2.5f, 2.5f, -2.5f, 2.5f};
  const Magnitudes& y = sorted_magnitudes(equal, {}, scratch);
  CHECK(one_bit(y) == 2.5);
  CHECK(two_means(y).low == 2.5);
  CHECK(two_means(y).high == 2.5);
  CHECK(top_mean(y) == 2.5);
  const std::vector<float> zeros(40, -0.0f);
  const Magnitudes& z = sorted_magnitudes(zeros, {}, scratch);
  CHECK(one_bit(z) == 0);
  CHECK(two_means(z).high == 0);
  CHECK(top_mean(z) == 0);
  for (std::size_t k = 1; k <= 8; ++k) {
    std::vector<double> v(k, 7);
    CHECK(best_refined(z, v, residual) == 0);
    CHECK(v == std::vector<double>(k, 0.0));
  }
  const Magnitudes& one = sorted_magnitudes(std::array{-3.0f}, {}, scratch);
  CHECK(one_bit(one) == 3);
  CHECK(two_means(one).high == 3);
  CHECK(top_mean(one) == 3);
  CHECK(top_mean(sorted_side(std::array{-3.0f}, {}, false, scratch)) == 0);
  // The tail has no say in the levels, but the levels are finite and the tail is nearest to the upper one.
  const std::vector<float> tail{1, 2, 3, 4, 100, 200}, weights{1, 1, 1, 1, 0, 0};
  const TwoMeans two = two_means(sorted_magnitudes(tail, weights, scratch));
  CHECK(two.low == Approx(1.5).margin(1e-4));
  CHECK(two.high == Approx(3.5).margin(1e-4));
  const std::vector<float> none(6, 0.0f);  // no weight at all: as ones
  CHECK(one_bit(sorted_magnitudes(tail, none, scratch)) == one_bit(sorted_magnitudes(tail, {}, scratch)));
}

// More than 40 lines: bins, their plain twin and the comparison share their samples.
TEST_CASE("binary: bins of both signs fold to the magnitudes, and open bins hold every better threshold") {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const Sample made = sample(300, static_cast<int>(seed % 4), true, seed);
    // Bins of a common width in the values, both signs; a few are single values.
    const double width = 0.05 + 0.05 * static_cast<double>(seed % 5);
    std::vector<float> order(made.x);
    std::vector<std::size_t> at(made.x.size());
    for (std::size_t i = 0; i < at.size(); ++i) at[i] = i;
    std::ranges::stable_sort(at, [&](std::size_t a, std::size_t b) { return made.x[a] < made.x[b]; });
    Group group;
    for (std::size_t i = 0; i < at.size();) {
      const double bin = std::floor(made.x[at[i]] / width);
      double mass = 0, sum = 0;
      const float first = made.x[at[i]];
      float last = first;
      for (; i < at.size() && std::floor(made.x[at[i]] / width) == bin; ++i) {
        const double w = std::max(made.w[at[i]], 1e-6f);
        mass += w, sum += w * made.x[at[i]], last = made.x[at[i]];
      }
      group.low.push_back(first), group.high.push_back(last);
      group.mass.push_back(mass), group.mean.push_back(sum / mass);
    }
    const FoldedGroup folded = fold(group);
    const Magnitudes& y = folded.magnitudes;
    for (std::size_t i = 1; i < y.size(); ++i) REQUIRE(y.high[i - 1] < y.low[i]);
    REQUIRE(folded.bins.size() == group.size());
    std::vector<float> weights(made.w);
    for (float& w : weights) w = std::max(w, 1e-6f);
    MagnitudeScratch scratch;
    const Magnitudes& truth = sorted_magnitudes(made.x, weights, scratch);
    REQUIRE(y.mass.back() == Approx(truth.mass.back()));
    REQUIRE(y.sum.back() == Approx(truth.sum.back()));
    const auto inside = [&](double value) -> int {
      for (std::size_t i = 0; i < y.size(); ++i)
        if (y.low[i] <= value && value < y.high[i]) return static_cast<int>(i);
      return -1;
    };
    const Split two = binary_scans().two_means(truth.mass.data(), truth.sum.data(), truth.size());
    const Split top = binary_scans().top_mean(truth.mass.data(), truth.sum.data(), truth.size());
    const auto open = [](const std::vector<std::uint32_t>& points, int point) {
      return std::ranges::find(points, static_cast<std::uint32_t>(point)) != points.end();
    };
    if (two.index > 0)
      if (const int point = inside(truth.point[two.index - 1]); point >= 0 && truth.point[two.index] <= y.high[point])
        REQUIRE(open(open_two_means(y), point));
    if (top.index > 0)
      if (const int point = inside(truth.point[top.index - 1]); point >= 0 && truth.point[top.index] <= y.high[point])
        REQUIRE(open(open_top_mean(y), point));
  }
}
