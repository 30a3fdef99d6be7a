// The library of unbiased quantization: levels of vectors, rounding, bad input; the objective of the worst input.
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "level_twin.hpp"
#include "lmq/base/error.hpp"
#include "lmq/quant/quantizer.hpp"
#include "lmq/quant/stochastic.hpp"
#include "methods/stochastic/level_fit.hpp"
#include "methods/stochastic/worst_levels.hpp"
#include "quant_samples.hpp"

using namespace lmq;

namespace {

constexpr auto kTotal = LevelObjective::total_variance, kLargest = LevelObjective::largest_variance;

/// Least largest variance of `levels` levels, found without next(): halving v, each level as far as a scan over all
/// values allows.
double scanned_worst(std::span<const double> x, std::size_t levels) {
  double bad = 0, good = (x.back() - x.front()) * (x.back() - x.front());
  for (int round = 0; round < 200; ++round) {
    const double v = (bad + good) / 2;
    double q = x.front();
    for (std::size_t t = 1; t < levels && q < x.back(); ++t) {
      double far = x.back();
      for (const double w : x)
        if (w > q) far = std::min(far, w + v / (w - q));
      q = far;
    }
    (q >= x.back() ? good : bad) = v;
  }
  return good;
}

bool is_float_level(std::span<const float> values, float level) {
  return std::ranges::find(values, level) != values.end();
}

Errc refusal(std::span<const float> values, std::span<const float> weights, const LevelChoice& choice) {
  try {
    (void)stochastic_levels(values, weights, choice);
  } catch (const Error& error) {
    REQUIRE(std::string(error.what()).find('\n') == std::string::npos);
    return error.code;
  }
  FAIL("not refused");
  return Errc::internal;
}

}  // namespace

TEST_CASE("stochastic levels: few values by sorting and many by bins have the optimum's cost",
          "[quant][levels][slow]") {
  LevelNarrowing solver;
  for (const auto source : twin::kSources)
    for (const bool weighted : {false, true})
      for (const std::size_t n : {1000u, 70000u}) {
        if (n > 65536 && (source == twin::Source::dynamic || source == twin::Source::subnormal)) continue;
        const auto values = twin::draw(source, n, 3);
        auto weights = weighted ? twin::random_weights(n, 4) : std::vector<float>{};
        const auto points = twin::distinct(values, weights);
        const LevelSums line = twin::line_of(points.values, points.weights);
        for (const std::size_t levels : {2, 5, 16}) {
          CAPTURE(static_cast<int>(source), weighted, n, levels);
          const auto best = solver.solve(
              line, levels, 0, n > 65536 ? LevelNarrowing::Engine::narrowing : LevelNarrowing::Engine::layered);
          const auto found = stochastic_levels(values, weights, {levels, kTotal, 0, 0});
          REQUIRE(found.levels.size() <= levels);
          REQUIRE(found.levels.front() == *std::ranges::min_element(values));
          REQUIRE(found.levels.back() == *std::ranges::max_element(values));
          for (const float level : found.levels) REQUIRE(is_float_level(values, level));
          const double cost = total_variance(values, weights, found.levels);
          REQUIRE(cost == Approx(best.cost).epsilon(1e-7).margin(1e-300));  // weights of many values are steps
          REQUIRE(found.cost == Approx(cost).epsilon(1e-7).margin(1e-300));
          REQUIRE(found.bound <= best.cost * (1 + 1e-7));
          const auto near = stochastic_levels(values, weights, {levels, kTotal, 0.02, 0});
          REQUIRE(total_variance(values, weights, near.levels) <= best.cost * 1.0200001);
          REQUIRE(near.cost <= near.bound * 1.02);
        }
      }
}

TEST_CASE("stochastic levels: a grid of cells keeps its bound", "[quant][levels]") {
  for (const auto source : {twin::Source::normal, twin::Source::student, twin::Source::laplace, twin::Source::discrete})
    for (const bool weighted : {false, true})
      for (const std::size_t grid : {16, 100, 1000})
        for (const std::size_t levels : {3, 8}) {
          const auto values = twin::draw(source, 3000, 8);
          const auto weights = weighted ? twin::random_weights(3000, 9) : std::vector<float>{};
          const double best = stochastic_levels(values, weights, {levels, kTotal, 0, 0}).cost;
          const auto found = stochastic_levels(values, weights, {2 * levels - 2, kTotal, 0, grid});
          double mass = 0;
          for (std::size_t i = 0; i < values.size(); ++i) mass += weighted ? weights[i] : 1;
          const double cell = (double{found.levels.back()} - found.levels.front()) / static_cast<double>(grid);
          CAPTURE(static_cast<int>(source), weighted, grid, levels);
          REQUIRE(total_variance(values, weights, found.levels) <= best + mass * cell * cell / 4);
          REQUIRE(stochastic_levels(values, weights, {levels, kTotal, 0, grid}).cost >= best * (1 - 1e-9));
        }
}

TEST_CASE("worst levels: halving over all values finds the same variance, and bins are opened until it is found",
          "[quant][levels]") {
  for (const auto source : twin::kSources) {
    if (source == twin::Source::dynamic) continue;
    for (const std::size_t n : {2, 3, 5, 9, 40, 600})
      for (const std::size_t levels : {2, 3, 5, 16}) {
        const auto x = twin::distinct(twin::draw(source, n, n + levels)).values;
        CAPTURE(static_cast<int>(source), n, levels);
        if (x.size() < 2) continue;
        const double best = x.size() <= levels ? 0 : scanned_worst(x, levels);
        const auto exact = WorstLevels(x, x).solve(levels, 0);
        REQUIRE(exact.open_bins.empty());
        REQUIRE(exact.levels.size() <= levels);
        REQUIRE(exact.variance == Approx(best).epsilon(1e-9).margin(1e-300));
        REQUIRE(exact.bound <= best * (1 + 1e-9));
        std::vector<bool> open(x.size(), false);
        for (int round = 0;; ++round) {  // bins of 7 values, open ones single
          REQUIRE(round < 20);
          std::vector<double> low, high;
          std::vector<std::size_t> begin;
          for (std::size_t i = 0; i < x.size();) {
            const std::size_t end = open[i] ? i + 1 : std::min(i + 7 - i % 7, x.size());
            low.push_back(x[i]), high.push_back(x[end - 1]), begin.push_back(i);
            i = end;
          }
          const auto found = WorstLevels(low, high).solve(levels, 0);
          REQUIRE(found.variance >= best * (1 - 1e-9));
          REQUIRE(found.bound <= best * (1 + 1e-9));
          if (found.open_bins.empty()) {
            REQUIRE(found.variance == Approx(best).epsilon(1e-9).margin(1e-300));
            break;
          }
          for (const std::uint32_t bin : found.open_bins)
            for (std::size_t i = begin[bin]; i < x.size() && x[i] <= high[bin]; ++i) open[i] = true;
        }
      }
  }
}

TEST_CASE("worst levels: no levels on a fine grid do better; weights are obeyed", "[quant][levels]") {
  std::mt19937_64 random(5);
  for (int round = 0; round < 20; ++round) {
    std::vector<float> values(8), weights(8);
    for (float& value : values) value = static_cast<float>(random() % 1000) / 100;
    for (float& weight : weights) weight = static_cast<float>(1 + random() % 5);
    const auto [low, high] = std::ranges::minmax(values);
    for (const bool weighted : {false, true}) {
      const auto w = weighted ? std::span<const float>(weights) : std::span<const float>{};
      const auto found = stochastic_levels(values, w, {4, kLargest, 0, 0});
      REQUIRE(largest_variance(values, w, found.levels) <= found.cost * (1 + 1e-5));
      for (int i = 0; i <= 100; ++i)
        for (int j = i; j <= 100; ++j) {
          const float a = std::lerp(low, high, static_cast<float>(i) / 100),
                      b = std::lerp(low, high, static_cast<float>(j) / 100);
          REQUIRE(largest_variance(values, w, std::vector<float>{low, a, b, high}) >= found.cost * (1 - 1e-5));
        }
    }
  }
}

TEST_CASE("stochastic levels: odd input is defined", "[quant][levels]") {
  const float infinity = std::numeric_limits<float>::infinity(), largest = std::numeric_limits<float>::max();
  for (const auto objective : {kTotal, kLargest}) {
    const LevelChoice four{4, objective, 0, 0};
    CHECK(refusal({}, {}, four) == Errc::malformed);
    CHECK(refusal(std::vector<float>{1, infinity}, {}, four) == Errc::malformed);
    CHECK(refusal(std::vector<float>{1, std::nanf(""), 2}, {}, four) == Errc::malformed);
    CHECK(refusal(std::vector<float>{1, 2}, std::vector<float>{1, -1}, four) == Errc::malformed);
    CHECK(refusal(std::vector<float>{1, 2}, std::vector<float>{1}, four) == Errc::usage);
    CHECK(refusal(std::vector<float>{1, 2}, {}, {1, objective, 0, 0}) == Errc::usage);
    CHECK(refusal(std::vector<float>{1, 2}, {}, {0, objective, 0, 0}) == Errc::usage);
    CHECK(refusal(std::vector<float>{1, 2}, {}, {257, objective, 0, 0}) == Errc::usage);
    CHECK(refusal(std::vector<float>{1, 2}, {}, {4, objective, -1, 0}) == Errc::usage);
    CHECK(refusal(std::vector<float>{1, 2}, {}, {4, kTotal, 0, 1}) == Errc::usage);
    const std::vector<float> constant(50, -0.0f);
    CHECK(stochastic_levels(constant, {}, {1, objective, 0, 0}).levels == std::vector<float>{0.0f});
    CHECK(stochastic_levels(constant, {}, four).cost == 0);
    const std::vector<float> few{3, 1, 3, 2, 1};
    CHECK(stochastic_levels(few, {}, four).levels == std::vector<float>{1, 2, 3});
    CHECK(stochastic_levels(few, {}, four).cost == 0);
    CHECK(stochastic_levels(few, {}, {2, objective, 0, 0}).levels == std::vector<float>{1, 3});
    const std::vector<float> zeros(5, 0.0f);
    CHECK(stochastic_levels(few, zeros, four).levels == std::vector<float>{1, 2, 3});
    const std::vector<float> wide{-largest, largest, 0, 1};  // a spread that no float holds
    const auto found = stochastic_levels(wide, {}, {3, objective, 0, 0});
    CHECK(found.levels.size() == 3);
    CHECK(std::isfinite(found.cost));
    CHECK(found.levels.front() == -largest);
    CHECK(found.levels.back() == largest);
    std::vector<Code> codes(4);
    round_stochastically(wide, found.levels, 1, 2, 0, codes);
    CHECK(codes[0] == 0);
    CHECK(codes[1] == 2);
    CHECK_THROWS_AS(round_stochastically(wide, found.levels, 1, 2, 0, std::span(codes).first(3)), Error);
    CHECK_THROWS_AS(round_stochastically(wide, {}, 1, 2, 0, codes), Error);
  }
}

TEST_CASE("stochastic rounding: each element's mean and the squared error are as promised, within stated bounds",
          "[quant][levels]") {
  constexpr std::size_t kValues = 2000, kRounds = 400;
  const auto values = twin::draw(twin::Source::student, kValues, 21);
  const auto levels = stochastic_levels(values, {}, {8, kTotal, 0, 0}).levels;
  std::vector<double> sum(kValues), variance(kValues), width(kValues);
  double squares = 0, expected = 0, spread = 0, bias = 0;
  std::vector<Code> codes(kValues);
  for (std::size_t r = 0; r < kRounds; ++r) {
    round_stochastically(values, levels, r, 77, 0, codes);
    for (std::size_t i = 0; i < kValues; ++i) {
      const double error = double{levels[codes[i]]} - values[i];
      sum[i] += error, squares += error * error, bias += error;
    }
  }
  for (std::size_t i = 0; i < kValues; ++i) {
    const auto above = std::ranges::upper_bound(levels, values[i]);
    if (above == levels.end()) continue;
    const double a = above[-1], b = *above, v = (b - values[i]) * (values[i] - a);
    expected += v * kRounds;
    spread += v * ((b - a) * (b - a) - 4 * v) * kRounds;  // variance of the squared error
    // 2000 means at once: 2000 * 2 Phi(-7.2) = 1.2e-9
    REQUIRE(std::abs(sum[i]) <= 7.2 * std::sqrt(v * kRounds) + 3 * (b - a));
  }
  CHECK(std::abs(bias) <= 5 * std::sqrt(expected));
  CHECK(std::abs(squares - expected) <= 5 * std::sqrt(spread));
  CHECK(total_variance(values, {}, levels) * kRounds == Approx(expected).epsilon(1e-9));
}

TEST_CASE("covering: every value lies between levels stored as halves, and storing again changes nothing",
          "[quant][levels]") {
  for (const int kind : {0, 1, 2, 3})
    for (const std::size_t width : {1, 2, 5, 16})
      for (unsigned seed = 0; seed < 40; ++seed) {
        std::vector<float> book;
        for (std::size_t b = 0; b < 6; ++b) {
          auto levels = samples::levels(width, kind, 100 * seed + static_cast<unsigned>(b), b % 2 == 1);
          if (b == 3) std::ranges::fill(levels, levels[0]);
          book.insert(book.end(), levels.begin(), levels.end());
        }
        auto stored = book;
        round_levels_covering(stored, width, LevelType::f16);
        CAPTURE(kind, width, seed);
        for (std::size_t at = 0; at < book.size(); at += width) {
          const float first = book[at], last = book[at + width - 1];
          for (std::size_t k = 1; k < width; ++k) REQUIRE(stored[at + k - 1] <= stored[at + k]);
          if (!(first < last) || std::fabs(first) > 3.4e38f || std::fabs(last) > 3.4e38f) continue;
          REQUIRE(stored[at] <= first);
          REQUIRE(stored[at + width - 1] >= last);
        }
        auto again = stored;
        round_levels(again, LevelType::f16);
        REQUIRE(again == stored);
        round_levels_covering(again, width, LevelType::f16);
        REQUIRE(again == stored);
      }
}

TEST_CASE("asq: methods find what the library finds, in bins, and take importance where it is an input's moment",
          "[quant][levels]") {
  const auto values = twin::draw(twin::Source::laplace, 5000, 31);
  const auto weights = twin::random_weights(5000, 32);
  Workspace scratch;
  const auto levels_of = [&](std::string_view method, std::span<const float> importance) {
    const auto& entry = find_quantizer(method);
    const Codebook book = entry.make(default_options(entry, 8))->fit_values(values, importance, scratch);
    return std::vector<float>(book.levels().begin(), book.levels().end());
  };
  const double plain = total_variance(values, {}, stochastic_levels(values, {}, {8, kTotal, 0, 0}).levels);
  const double weighted = total_variance(values, weights, stochastic_levels(values, weights, {8, kTotal, 0, 0}).levels);
  CHECK(total_variance(values, {}, levels_of("asq", {})) == Approx(plain));
  CHECK(total_variance(values, {}, levels_of("asq-ip-mean", {})) == Approx(plain));
  CHECK(total_variance(values, weights, levels_of("asq-ip-mean", weights)) == Approx(weighted));
  CHECK(largest_variance(values, {}, levels_of("asq-ip-worst", {})) ==
        Approx(stochastic_levels(values, {}, {8, kLargest, 0, 0}).cost).epsilon(1e-5));
  for (const char* method : {"asq", "asq-ip-worst", "asq-ip-mean"}) {
    const auto& entry = find_quantizer(method);
    CHECK(entry.make(default_options(entry, 8))->traits().rounding == Rounding::stochastic);
    CHECK(entry.make(default_options(entry, 8))->traits().importance == (entry.name == "asq-ip-mean"));
  }
}
