#include "lmq/run/budget.hpp"

#include <catch2/catch.hpp>
#include <cmath>

#include "lmq/base/error.hpp"

using namespace lmq;

namespace {

/// A plan of floating scopes, one tensor each.
Plan plan_of(const std::vector<std::uint64_t>& weights, std::uint64_t target) {
  Plan plan;
  plan.target_bytes = target;
  for (std::uint32_t s = 0; s < weights.size(); ++s) {
    TensorPlan tensor;
    tensor.tensor = s;
    tensor.treatment = Treatment::quantize;
    tensor.spec.method = find_quantizer("kmeans").id;
    tensor.spec.floating = true;
    tensor.scope = s;
    tensor.importance.present = true;
    plan.tensors.push_back(tensor);
    plan.scopes.push_back({{s}, weights[s], tensor.spec, 1});
  }
  return plan;
}

/// The high-rate law of one variance: distortion = weights * variance / levels^2, bits = log2(levels).
ScopeCurve curve_of(double weights, double variance) {
  ScopeCurve curve;
  curve.mean_square = variance;
  for (std::size_t levels = 2; levels <= 256; ++levels) {
    const auto k = static_cast<double>(levels);
    curve.points.push_back({std::nan(""), weights * std::log2(k), weights * variance / (k * k), levels});
  }
  return curve;
}

struct Model {
  std::vector<std::uint64_t> weights;
  std::vector<double> variance;
  double error = 0;  // of the curves: what is stored is so much more than predicted, other for each scope
  std::uint64_t other = 5000;
  std::vector<std::size_t> levels;

  std::vector<std::uint64_t> records() const {
    std::vector<std::uint64_t> bytes;
    for (std::size_t s = 0; s < weights.size(); ++s)
      bytes.push_back(
          static_cast<std::uint64_t>(static_cast<double>(weights[s]) * std::log2(static_cast<double>(levels[s])) / 8 *
                                     (1 + error * (1 + static_cast<double>(s % 3)))));
    return bytes;
  }
  std::uint64_t file() const {
    std::uint64_t sum = other;
    for (const std::uint64_t bytes : records()) sum += bytes;
    return sum;
  }
  void take(const std::vector<Budget::Choice>& choices) {
    levels.resize(weights.size());
    for (const auto& [scope, options] : choices) levels[scope] = options.levels;
  }
};

/// Carries a budget out; how often something was done again.
int carry_out(Model& model, std::uint64_t target) {
  const Plan plan = plan_of(model.weights, target);
  Budget budget(plan, 1000);
  for (std::uint64_t s = 0; s < model.weights.size(); ++s)
    budget.take_curve(s, curve_of(static_cast<double>(model.weights[s]), model.variance[s]));
  model.take(budget.choose(4000));
  for (int again = 0;; ++again) {
    REQUIRE(again < 20);
    const auto choices = budget.correct(model.file(), model.records());
    if (choices.empty()) return again;
    model.take(choices);
  }
}

Model sixty(double error) {
  Model model;
  for (std::uint64_t s = 0; s < 60; ++s) {
    model.weights.push_back(20000 + 7919 * s);
    model.variance.push_back(std::pow(1.3, static_cast<double>(s % 11)));
  }
  model.error = error;
  return model;
}

}  // namespace

TEST_CASE("budget: never above the target, within a thousandth below it, whatever the curves are off by", "[run]") {
  for (const double error : {0.0, 0.004, -0.01, 0.05, 0.3})
    for (const double bits : {1.5, 2.7, 4.0, 6.5}) {
      Model model = sixty(error);
      double weights = 0;
      for (const std::uint64_t count : model.weights) weights += static_cast<double>(count);
      const auto target = static_cast<std::uint64_t>(bits * weights / 8);
      INFO("curves off by " << error << ", " << bits << " bits");
      const int again = carry_out(model, target);
      CHECK(again <= 8);
      CHECK(model.file() <= target);
      CHECK(model.file() >= target - target / 1000);
    }
}

TEST_CASE("budget: the first choice is the least distortion of its size", "[run]") {
  // Three scopes: every combination of levels is tried.
  Model model{{1000, 2000, 500}, {1, 4, 16}, 0, 0, {}};
  const Plan plan = plan_of(model.weights, 1400);
  Budget budget(plan, 0);
  std::vector<ScopeCurve> curves;
  for (std::uint64_t s = 0; s < 3; ++s) {
    curves.push_back(curve_of(static_cast<double>(model.weights[s]), model.variance[s]));
    budget.take_curve(s, curves.back());
  }
  model.take(budget.choose(0));
  const auto of = [&](std::size_t s, std::size_t levels) { return curves[s].points[levels - 2]; };
  double bits = 0, distortion = 0;
  for (std::size_t s = 0; s < 3; ++s) {
    bits += of(s, model.levels[s]).bits;
    distortion += of(s, model.levels[s]).distortion;
  }
  REQUIRE(bits <= 8 * 1400);
  for (std::size_t a = 2; a <= 60; ++a)
    for (std::size_t b = 2; b <= 60; ++b)
      for (std::size_t c = 2; c <= 60; ++c)
        if (of(0, a).bits + of(1, b).bits + of(2, c).bits <= bits)
          REQUIRE(of(0, a).distortion + of(1, b).distortion + of(2, c).distortion >= distortion * (1 - 1e-12));
}

TEST_CASE("budget: what cannot be is refused, with the smallest size that can", "[run]") {
  Model model = sixty(0);
  CHECK_THROWS_WITH(carry_out(model, 900), Catch::Contains("smallest possible"));
  CHECK_THROWS_WITH(carry_out(model, 100000), Catch::Contains("smallest possible"));
}

TEST_CASE("budget: more room than all levels need is left empty", "[run]") {
  Model model = sixty(0.01);
  (void)carry_out(model, std::uint64_t{1} << 40);
  for (const std::size_t levels : model.levels) CHECK(levels == 256);
}
