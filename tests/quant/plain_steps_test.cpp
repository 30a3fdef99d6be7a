#include "methods/ecsq/plain_steps.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <random>

#include "lmq/quant/quantizer.hpp"
#include "methods/ecsq/entropy_fit.hpp"
#include "rate_samples.hpp"

using namespace lmq;

namespace {

constexpr std::size_t kMax = 256;

/// Heavy tails: normal values, and as many outliers, up to `reach` deviations out, as asked for.
Group with_outliers(std::size_t outliers, double reach, unsigned seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  std::vector<float> values;
  for (int k = 0; k < 3000; ++k) values.push_back(static_cast<float>(normal(random)));
  for (std::size_t k = 0; k < outliers; ++k)
    values.push_back(static_cast<float>((random() % 2 == 0 ? 1 : -1) * std::exp2(normal(random)) * reach));
  std::ranges::sort(values);
  values.erase(std::unique(values.begin(), values.end()), values.end());
  std::vector<double> counts(values.size());
  for (double& count : counts) count = static_cast<double>(1 + random() % 9);
  return rate_samples::group_of(values, counts);
}

double nearest(std::span<const double> levels, double value) {
  double best = levels.front();
  for (const double level : levels)
    if (std::fabs(level - value) < std::fabs(best - value)) best = level;
  return best;
}

double variance_of(const Group& group) {
  double sum = 0, count = 0;
  for (std::size_t k = 0; k < group.size(); ++k)
    sum += group.count[k] * group.mean[k] * group.mean[k], count += group.count[k];
  return sum / count;
}

}  // namespace

TEST_CASE("plain steps: bits and distortion are those of each weight at its nearest level", "[quant][ecsq]") {
  const std::size_t outliers = GENERATE(0u, 5u, 400u);
  const double lambda = GENERATE(1e-7, 1e-3, 0.02, 1.0, 50.0);
  const Group group = with_outliers(outliers, 300, 7);
  const RateSums line(group);
  const UniformCode code = plain_code(line, lambda, kMax);
  REQUIRE(code.levels.size() <= kMax);
  std::vector<double> counts(code.levels.size(), 0.0);
  double error = 0, all = 0, bits = 0;
  for (std::size_t k = 0; k < group.size(); ++k) {
    const double level = nearest(code.levels, group.mean[k]), off = group.mean[k] - level;
    error += group.count[k] * off * off;
    counts[static_cast<std::size_t>(std::ranges::find(code.levels, level) - code.levels.begin())] += group.count[k];
    all += group.count[k];
  }
  for (const double count : counts)
    if (count > 0) bits += count * std::log2(all / count);
  CAPTURE(outliers, lambda, code.levels.size());
  REQUIRE(code.code.distortion == Approx(error).epsilon(1e-9));
  REQUIRE(code.code.bits == Approx(bits).epsilon(1e-6).margin(1e-6));
}

TEST_CASE("plain steps: nothing is clipped, however far out", "[quant][ecsq]") {
  const std::size_t outliers = GENERATE(1u, 40u, 1500u);
  const double reach = GENERATE(10.0, 1e4, 1e20);
  const Group group = with_outliers(outliers, reach, 3);
  const RateSums line(group);
  // A slope of about 4 bits for the normal part.
  const UniformCode code = plain_code(line, 0.0056 * 2 * 0.6931, kMax);
  CAPTURE(outliers, reach, code.levels.size(), code.step);
  REQUIRE(code.levels.size() <= kMax);
  for (const double value : group.mean) {
    const double off = std::fabs(nearest(code.levels, value) - value);
    REQUIRE((off <= code.step * 0.501 || off <= std::fabs(value) / 2));
    if (outliers <= 40) REQUIRE((off <= code.step * 0.501 || off <= std::fabs(value) / 16));
  }
}

TEST_CASE("plain steps: levels of a grid are exact multiples of the step, and zero is one", "[quant][ecsq]") {
  const double lambda = GENERATE(0.001, 0.013, 0.7);
  const Group group = with_outliers(0, 1, 11);
  const RateSums line(group);
  const UniformCode code = plain_code(line, lambda, kMax);
  REQUIRE(code.on_grid);
  const Codebook book = Codebook::grid(static_cast<float>(code.low), static_cast<float>(code.step), code.grid_levels);
  bool zero = false;
  for (const float level : book.levels()) {
    REQUIRE(std::remainder(double{level}, code.step) == 0);
    zero = zero || (level == 0 && !std::signbit(level));
  }
  REQUIRE(zero);
}

TEST_CASE("plain steps: a dearer bit never brings more bits or less distortion than a tenth of a percent",
          "[quant][ecsq]") {
  const Group group = rate_samples::bf16_normal(20);
  const RateSums line(group);
  double bits = std::numeric_limits<double>::infinity(), distortion = 0;
  for (double slope = 2e-4; slope < 3; slope *= 1.1) {  // up to 6 bits, where 256 levels reach
    const UniformCode code = plain_code(line, slope * variance_of(group), kMax);
    CAPTURE(slope);
    REQUIRE(code.code.bits <= bits * 1.001);
    REQUIRE(code.code.distortion >= distortion * 0.999);
    bits = code.code.bits, distortion = code.code.distortion;
  }
}

TEST_CASE("plain steps: at 2 to 5 bits within .2 dB of the best uniform code of the same slope", "[quant][ecsq]") {
  const Group group = rate_samples::bf16_normal(20);
  const RateSums line(group);
  const double lambda = variance_of(group) * GENERATE(0.002, 0.01, 0.05);
  const UniformCode plain = plain_code(line, lambda, kMax);
  const UniformCode best = best_uniform(line, {lambda, CutRule::automatic, kMax, 32});
  // The same bits by moving along the curve: 6.02 dB a bit.
  const double bits = (plain.code.bits - best.code.bits) / line.count;
  const double decibels = 10 * std::log10(plain.code.distortion / best.code.distortion) + 6.02 * bits;
  REQUIRE(decibels <= 0.2);
  REQUIRE(decibels >= -0.02);
}

TEST_CASE("plain steps: what guards levels that do not reach gives the same code as the whole search",
          "[quant][ecsq]") {
  std::size_t bound = 0, free = 0;
  IntervalSearch search, whole;
  EntropyFitter fitter(nullptr);
  EcsqOptions wish;
  wish.way = EcsqAlgorithm::uniform, wish.cuts = CutRule::plain;
  for (const std::size_t levels : {16u, 64u, 256u})
    for (const double reach : {4.0, 40.0, 4000.0}) {
      const Group group = with_outliers(40, reach, static_cast<unsigned>(levels + static_cast<std::size_t>(reach)));
      const RateSums line(group);
      wish.most_levels = levels;
      for (int octave = 2; octave >= -24; octave -= 3) {
        const double lambda = std::ldexp(1.0, octave);
        const UniformCode plain = plain_code(line, lambda, levels);
        const double price = 0.95 * plain.code.price(lambda);
        const IntervalCode optimum = whole.quick(line, lambda, levels);
        const auto cheaper = search.cheaper(line, lambda, levels, price);
        const bool better = optimum.price(lambda) < price;
        CAPTURE(levels, reach, octave);
        REQUIRE(cheaper.has_value() == better);
        if (better) REQUIRE(cheaper->ends == optimum.ends);
        const bool takes = better && !plain.on_grid;
        REQUIRE(fitter.at(line, wish, lambda, true).found.code.ends == (takes ? optimum.ends : plain.code.ends));
        (takes ? bound : free) += 1;
      }
    }
  REQUIRE(bound > 5);
  REQUIRE(free > 20);
}

TEST_CASE("plain steps: one value, two values, a few", "[quant][ecsq]") {
  const std::vector<float> values =
      GENERATE(std::vector<float>{0.0F}, std::vector<float>{-3.5F}, std::vector<float>{-1e-30F, 1e30F},
               std::vector<float>{-1.0F, 0.0F, 1e-3F});
  const double lambda = GENERATE(1e-12, 1e-2, 1e12);
  const Group group = rate_samples::group_of(values, std::vector<double>(values.size(), 2.0));
  const RateSums line(group);
  const UniformCode code = plain_code(line, lambda, kMax);
  REQUIRE(code.levels.size() == code.code.cells());
  for (const double level : code.levels) REQUIRE(std::isfinite(level));
}

TEST_CASE("plain steps: levels of the largest floats are floats", "[quant][ecsq]") {
  constexpr double kLargest = std::numeric_limits<float>::max();
  const double rate = GENERATE(1.0, 2.5, 4.0);
  std::vector<float> values;
  for (int k = -20; k <= 20; ++k) values.push_back(static_cast<float>(kLargest * k / 20));
  const Group group = rate_samples::group_of(values, std::vector<double>(values.size(), 3.0));
  const RateSums line(group);
  const UniformCode code = plain_code(line, variance_of(group) * std::exp2(-2 * rate) * 1.386, kMax);
  CAPTURE(rate, code.step);
  for (const double level : code.levels) REQUIRE(std::fabs(level) <= kLargest);
  if (code.on_grid) REQUIRE(std::fabs(code.low) <= kLargest);
}
