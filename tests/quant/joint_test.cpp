// Codes whose labels depend on value and importance.
#include <array>
#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <map>
#include <random>

#include "core/priced_levels.hpp"
#include "lmq/base/error.hpp"
#include "lmq/quant/rate.hpp"
#include "methods/ecsq/ecsq_options.hpp"
#include "methods/ecsq/entropy_fit.hpp"
#include "option_values.hpp"
#include "quant_samples.hpp"

using namespace lmq;

namespace {

struct Weight {
  float value, importance;
};
std::vector<Weight> laplace(std::size_t count, double sigma, unsigned seed, bool zeros = false) {
  std::mt19937_64 random(seed);
  std::exponential_distribution<double> size;
  std::normal_distribution<double> normal;
  std::vector<Weight> weights(count);
  for (Weight& w : weights) {
    w.value = static_cast<float>((random() & 1) != 0 ? size(random) : -size(random));
    if (zeros && random() % 4 == 0) w.value = 0;
    w.importance = static_cast<float>(std::exp(sigma * normal(random)));
  }
  return weights;
}

struct Columns {
  std::vector<float> values, importance;
  explicit Columns(const std::vector<Weight>& weights) {
    for (const Weight& w : weights) values.push_back(w.value), importance.push_back(w.importance);
  }
  [[nodiscard]] TensorView view() const { return samples::view_of(DType::f32, std::as_bytes(std::span(values))); }
  [[nodiscard]] Importance weighs() const {
    return {Importance::Kind::weights, importance, 0,
            importance_quantum(*std::ranges::max_element(importance), importance.size())};
  }
  /// Every value a bin of its own.
  [[nodiscard]] Group group() const {
    const KeyRange all{0x00800000u, 0xFF7FFFFFu, 0};
    return ValueHistogram::of(view(), weighs(), std::span(&all, 1), true).group(weighs().quantum);
  }
};

/// D + lambda H of labels, from the weights themselves; levels are the means unless given.
double plain_price(const std::vector<Weight>& weights, const std::vector<std::size_t>& labels, double lambda,
                   bool keep_zero = false) {
  std::map<std::size_t, std::array<long double, 4>> sums;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const long double h = weights[i].importance, v = weights[i].value;
    auto& sum = sums[labels[i]];
    sum[0] += 1, sum[1] += h, sum[2] += h * v, sum[3] += h * v * v;
  }
  long double price = 0;
  for (const auto& [label, sum] : sums) {
    const bool zero = keep_zero && label == 0;
    price += sum[3] - (zero ? 0 : sum[2] * sum[2] / sum[1]);
    price -= lambda * sum[0] * std::log2(sum[0] / static_cast<long double>(weights.size()));
  }
  return static_cast<double>(price);
}

/// The paper's iteration on the weights one by one, from their labels.
double by_weight(const std::vector<Weight>& weights, std::vector<std::size_t> labels, double lambda) {
  for (int round = 0; round < 200; ++round) {
    std::map<std::size_t, std::array<double, 3>> sums;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      auto& sum = sums[labels[i]];
      sum[0] += 1, sum[1] += weights[i].importance, sum[2] += double{weights[i].importance} * weights[i].value;
    }
    bool same = true;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      double least = INFINITY;
      std::size_t best = 0;
      for (const auto& [label, sum] : sums) {
        const double error = weights[i].value - sum[2] / sum[1];
        const double price =
            weights[i].importance * error * error - lambda * std::log2(sum[0] / static_cast<double>(weights.size()));
        if (price < least) least = price, best = label;
      }
      same = same && best == labels[i];
      labels[i] = best;
    }
    if (same) break;
  }
  return plain_price(weights, labels, lambda);
}

std::vector<std::size_t> interval_labels(const std::vector<Weight>& weights, const RateSums& line,
                                         const IntervalCode& code) {
  std::vector<std::size_t> labels;
  for (const Weight& w : weights) {
    const auto point = static_cast<std::uint32_t>(std::ranges::upper_bound(line.low, w.value) - line.low.begin() - 1);
    labels.push_back(static_cast<std::size_t>(std::ranges::upper_bound(code.ends, point) - code.ends.begin() - 1));
  }
  return labels;
}

double lambda_of(const RateSums& line, double part) { return part * line.energy / line.count; }

struct Both {
  IntervalCode interval;
  EntropyCode joint;
};
Both fit_both(const Group& group, const RateSums& line, double lambda) {
  const JointSums layers(group, line);
  Both both{EntropyFitter().at(line, {}, lambda, false).found.code, EntropyFitter(&layers).at(line, {}, lambda, false)};
  return both;
}

}  // namespace

TEST_CASE("priced cuts give every value the level of least price, zeros the level 0") {
  std::mt19937_64 random(3);
  std::normal_distribution<double> normal;
  for (int trial = 0; trial < 3000; ++trial) {
    std::vector<double> levels(1 + random() % 12);
    for (double& level : levels) level = double{static_cast<float>(normal(random))};
    if (trial % 3 == 0) levels[random() % levels.size()] = 0;
    std::ranges::sort(levels);
    levels.erase(std::unique(levels.begin(), levels.end()), levels.end());
    std::vector<double> prices(levels.size());
    for (double& price : prices) price = std::ldexp(std::fabs(normal(random)), static_cast<int>(random() % 9) - 6);
    const double importance = std::ldexp(1 + std::fabs(normal(random)), static_cast<int>(random() % 41) - 20);
    PricedCuts cuts;
    priced_cuts(levels, prices, importance, cuts);
    REQUIRE(cuts.order.size() == cuts.cuts.size() + 1);
    REQUIRE(std::ranges::is_sorted(cuts.cuts));
    const auto code_of = [&](float v) {
      return cuts.order[static_cast<std::size_t>(std::ranges::upper_bound(cuts.cuts, v) - cuts.cuts.begin())];
    };
    const auto price_of = [&](float v, std::size_t l) {
      return importance * (v - levels[l]) * (v - levels[l]) + prices[l];
    };
    for (int k = 0; k < 50; ++k) {
      const auto v = static_cast<float>(2 * normal(random));
      double least = INFINITY;
      for (std::size_t l = 0; l < levels.size(); ++l) least = std::min(least, price_of(v, l));
      // A float as a cut is off by half a unit in its last place, which is worth that much of the line's slope.
      const double slack = importance * 1e-6 * (1 + v * v) + 1e-12 * least;
      REQUIRE(price_of(v, code_of(v)) <= least + slack);
    }
    if (std::ranges::find(levels, 0.0) != levels.end())
      for (const float zero : {0.0f, -0.0f}) REQUIRE(levels[code_of(zero)] == 0);
  }
}

TEST_CASE("weights are assigned as their layer says, whatever their importance") {
  const auto weights = laplace(5000, 6, 8, true);
  Columns columns(weights);
  for (std::size_t i = 0; i < 5000; i += 11) columns.importance[i] = 0;
  columns.importance[7] = 1e30f, columns.importance[8] = 1e-40f;
  for (const std::size_t levels : {1, 2, 7, 30, 256}) {
    std::vector<float> table;
    for (std::size_t k = 0; k < levels; ++k)
      table.push_back(static_cast<float>(k) * 0.07f - (levels > 7 ? 0.07f * 4 : 0.0f));
    std::vector<double> prices;
    for (std::size_t k = 0; k < levels; ++k) prices.push_back(0.3 * static_cast<double>(k * 7 % 11));
    for (const double quantum : {0x1p-20, 0x1p-30, 1.0}) {
      const PricedLevels priced(table, prices, quantum);
      std::vector<Code> codes(weights.size());
      priced.assign(columns.values, columns.importance, codes);
      const std::vector<double> exact(table.begin(), table.end());
      PricedCuts cuts;
      for (std::size_t i = 0; i < weights.size(); ++i) {
        const double steps = std::clamp(std::nearbyint(double{columns.importance[i]} / quantum), 1.0, 0x1p62);
        priced_cuts(exact, prices, layer_importance(layer_of(static_cast<std::uint64_t>(steps)), quantum), cuts);
        const auto interval = std::ranges::upper_bound(cuts.cuts, columns.values[i]) - cuts.cuts.begin();
        REQUIRE(codes[i] == cuts.order[static_cast<std::size_t>(interval)]);
      }
    }
  }
}

TEST_CASE("a layer is a quarter of an octave, and stands for its middle") {
  std::size_t before = 0;
  for (std::uint64_t steps = 1; steps < 100000; ++steps) {
    const std::size_t layer = layer_of(steps);
    REQUIRE((layer == before || layer > before));
    before = layer;
    if (steps >= 4) REQUIRE(std::fabs(static_cast<double>(steps) / layer_importance(layer, 1) - 1) <= 1.0 / 8);
  }
  CHECK(layer_of((std::uint64_t{1} << 63) - 1) == kLayers - 1);
  CHECK(layer_importance(layer_of(1 << 20), 0x1p-20) == 1.125);
}

TEST_CASE("joint: never dearer than the interval optimum nor cheaper than the best of all labels") {
  double gained = 0;
  for (unsigned seed = 0; seed < 150; ++seed) {
    const auto weights = laplace(5 + seed % 4, 3, seed);
    const Group group = Columns(weights).group();
    const RateSums line(group);
    for (const double part : {0.003, 0.03, 0.1, 0.3, 1.0}) {
      const double lambda = lambda_of(line, part);
      const Both both = fit_both(group, line, lambda);
      const double interval = both.interval.price(lambda);
      const double joint = both.joint.distortion() + lambda * both.joint.bits();
      std::vector<std::size_t> labels(weights.size(), 0);
      double best = INFINITY;
      for (bool more = true; more;) {  // restricted growth strings
        best = std::min(best, plain_price(weights, labels, lambda));
        more = false;
        for (std::size_t at = labels.size(); at-- > 1 && !more;) {
          const auto most = *std::max_element(labels.begin(), labels.begin() + static_cast<std::ptrdiff_t>(at)) + 1;
          more = labels[at] < most;
          labels[at] = more ? labels[at] + 1 : 0;
        }
      }
      CAPTURE(seed, part);
      REQUIRE(joint <= interval);
      REQUIRE(joint >= best * (1 - 1e-6));  // steps of importance are rounded
      gained += joint < interval * (1 - 1e-9);
    }
  }
  CHECK(gained > 20);
}

TEST_CASE("joint: gains over interval codes as published, layers lose next to nothing", "[slow]") {
  // 1,500 Laplace values, importance lognormal: gain in percent of the price at .3, .1, .02 of the variance.
  const std::map<double, std::array<double, 3>> published{
      {0.5, {1.4, 0.4, 0.1}}, {1.0, {7.3, 3.2, 0.9}}, {2.0, {25, 28, 16}}};
  for (const auto& [sigma, expected] : published)
    for (std::size_t k = 0; k < 3; ++k) {
      double gain = 0;
      const int seeds = 12;
      for (int seed = 0; seed < seeds; ++seed) {
        const auto weights = laplace(1500, sigma, static_cast<unsigned>(100 + seed));
        const Group group = Columns(weights).group();
        const RateSums line(group);
        const double lambda = lambda_of(line, std::array{0.3, 0.1, 0.02}[k]);
        const Both both = fit_both(group, line, lambda);
        gain +=
            100 * (1 - (both.joint.distortion() + lambda * both.joint.bits()) / both.interval.price(lambda)) / seeds;
      }
      CAPTURE(sigma, k, gain, expected[k]);
      CHECK(std::fabs(gain - expected[k]) < 0.25 * expected[k] + 0.1);
    }
  const auto weights = laplace(60000, 1, 5);
  const Group group = Columns(weights).group();
  const RateSums line(group);
  const double lambda = lambda_of(line, 0.1);
  const Both both = fit_both(group, line, lambda);
  const double exact = by_weight(weights, interval_labels(weights, line, both.interval), lambda);
  CHECK(both.joint.distortion() + lambda * both.joint.bits() <= exact * (1 + 1e-3));
}

// More than 40 lines: the fit, the codes and their cost share one tensor.
TEST_CASE("joint: what the fit promises is what the codes of a BF16 tensor cost, for any number of threads") {
  const auto weights = laplace(40000, 1.2, 77, true);
  const Columns columns(weights);
  std::vector<std::byte> bf16(2 * weights.size());
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const auto pattern = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(columns.values[i]) >> 16);
    std::memcpy(bf16.data() + 2 * i, &pattern, 2);
  }
  const TensorView view = samples::view_of(DType::bf16, bf16);
  const Importance importance = columns.weighs();
  const Group group = ValueHistogram::of(view, importance, {}, true).group(importance.quantum);
  REQUIRE(group.layers.size() > 10);
  for (const char* name : {"ecsq", "ecsq-iter"}) {
    const QuantizerEntry& entry = find_quantizer(name);
    for (const double rate : {0.5, 1.0, 2.0, 4.0}) {
      CAPTURE(name, rate);
      QuantSpec spec{.method = entry.id, .options = default_options(entry, 16)};
      samples::set_option(spec.options, entry, "rate", rate);
      const Codebook fitted = entry.make(spec.options)->fit(group).codebook;
      REQUIRE(fitted.prices().size() == fitted.levels().size());
      const RatePoint point = rate_of(group, fitted);
      CHECK(point.bits <= rate * 40000 * (1 + 1e-12));
      CHECK(point.bits >= (rate - 0.01) * 40000);
      std::vector<Code> first;
      for (const std::size_t threads : {1, 3}) {
        const samples::Threads set(threads);
        const UnitOutcome done = quantize_unit({view, importance, 0}, spec, &fitted);
        std::map<Code, double> counts;
        for (const Code code : done.unit.codes) ++counts[code];
        double bits = 0;
        for (const auto& [code, count] : counts) bits -= count * std::log2(count / 40000);
        CHECK(bits == Approx(point.bits).epsilon(1e-9));
        CHECK(done.stats.weighted_error == Approx(point.distortion).epsilon(1e-5));
        if (threads == 1) first = {done.unit.codes.begin(), done.unit.codes.end()};
        CHECK(std::ranges::equal(first, done.unit.codes));
        for (std::size_t i = 0; i < weights.size(); ++i)
          if (weights[i].value == 0) REQUIRE(fitted.levels()[done.unit.codes[i]] == 0);
      }
      // Unshared, from the window alone: the same.
      const UnitOutcome alone = quantize_unit({view, importance, 0}, spec, nullptr);
      CHECK(std::ranges::equal(first, alone.unit.codes));
      QuantSpec by_value = spec;
      samples::set_option(by_value.options, entry, "labels", 1);
      CHECK(alone.stats.weighted_error <
            0.98 * quantize_unit({view, importance, 0}, by_value, nullptr).stats.weighted_error);
    }
  }
}

TEST_CASE("joint: importance that is alike everywhere, or none, changes nothing") {
  const auto weights = laplace(3000, 1, 4);
  Columns columns(weights);
  std::ranges::fill(columns.importance, 0.75f);
  const QuantizerEntry& entry = find_quantizer("ecsq");
  QuantSpec spec{.method = entry.id, .options = default_options(entry, 8)};
  const UnitOutcome plain = quantize_unit({columns.view(), {}, 0}, spec, nullptr);
  const UnitOutcome weighted = quantize_unit({columns.view(), columns.weighs(), 0}, spec, nullptr);
  CHECK(std::ranges::equal(plain.unit.codes, weighted.unit.codes));
  CHECK(std::ranges::equal(plain.unit.book, weighted.unit.book));
}

TEST_CASE("prices are as many as levels, finite, and follow levels that become one") {
  const Codebook book = Codebook::table({-1, 0, 0.5f}).with_prices({2, 1, 3});
  CHECK(book.cuts().empty());
  CHECK_THROWS_AS(book.with_prices({1, 2}), Error);
  CHECK_THROWS_AS(book.with_prices({1, 2, INFINITY}), Error);
  const Codebook close = Codebook::table({1, std::nextafter(1.0f, 2.0f), 2}).with_prices({5, 4, 3});
  const Codebook stored = close.stored_as(LevelType::f16);
  REQUIRE(stored.levels().size() == 2);
  CHECK(std::ranges::equal(stored.prices(), std::array{4.0, 3.0}));
}
