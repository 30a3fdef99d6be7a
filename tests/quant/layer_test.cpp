// What methods that see layers are given, and what they give.
#include <catch2/catch.hpp>

#include "lmq/base/error.hpp"
#include "lmq/quant/unit.hpp"
#include "quant_samples.hpp"

using namespace lmq;

TEST_CASE("spreads add up in any order and come back from their bytes", "[quant][layer]") {
  SpreadHistogram a, b;
  a.add(0, 5), a.add(-700, 2), a.add(8, 1, 3.0);
  b.add(8, 4), b.add(5000, 1);
  SpreadHistogram ab = a, ba = b;
  ab.merge(b), ba.merge(a);
  REQUIRE(ab == ba);
  CHECK(ab.weights() == 13);
  CHECK(SpreadHistogram::from_bytes(ab.to_bytes(), "test") == ab);
  CHECK(SpreadHistogram::from_bytes(SpreadHistogram().to_bytes(), "test").empty());
  const auto bins = ab.bins();
  REQUIRE(bins.size() == 4);
  CHECK(bins[1].square == 1);
  CHECK(bins[2].weights == 5);
  CHECK(bins[2].square == Approx(4));
  CHECK(bins[2].gain == Approx(3.0 / 5));
  SpreadHistogram same;
  same.merge(a);
  CHECK(same == a);
  same.merge(SpreadHistogram());
  CHECK(same == a);
}

TEST_CASE("bytes that are no spreads are refused, never followed", "[quant][layer]") {
  SpreadHistogram histogram;
  for (int k = -40; k < 40; ++k) histogram.add(7 * k, 1000, k & 3);
  const auto bytes = histogram.to_bytes();
  for (std::size_t length = 0; length < bytes.size(); ++length)
    CHECK_THROWS_AS(SpreadHistogram::from_bytes(std::span(bytes).first(length), "cut"), Error);
  for (std::size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    auto flipped = bytes;
    flipped[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    try {
      const SpreadHistogram read = SpreadHistogram::from_bytes(flipped, "flipped");
      CHECK(read.bins().size() == histogram.bins().size());
    } catch (const Error& error) {
      CHECK(error.code == Errc::malformed);
    }
  }
}

TEST_CASE("lanes are whole blocks of the outputs' curvature", "[quant][layer]") {
  CHECK(lane_rows_of(256, 0) == 256);
  CHECK(lane_rows_of(0, 0) == 1);
  CHECK(lane_rows_of(256, 128) == 256);
  CHECK(lane_rows_of(256, 100) == 200);
  CHECK(lane_rows_of(256, 352) == 352);
  CHECK(lane_rows_of(1, 3) == 3);
}

TEST_CASE("importance covers a layer when its matrices have the window's size", "[quant][layer]") {
  const std::vector<float> columns(3, 1.0f), gram(9, 1.0f), outer(2 * 4, 1.0f);
  Importance importance{.kind = Importance::Kind::columns, .values = columns, .length = 3};
  CHECK(covers(importance, 9));
  importance.gram = gram;
  importance.outer = outer, importance.outer_rows = 2;
  CHECK(covers(importance, 9));        // 3 rows in blocks of 2
  CHECK(covers(importance, 12));       // 4
  CHECK_FALSE(covers(importance, 6));  // one block is too many
  CHECK_FALSE(covers(importance, 8));  // no whole rows
  importance.outer = {};
  importance.gram = std::span(gram).first(8);
  CHECK_FALSE(covers(importance, 9));
  importance.gram = gram, importance.first_column = 1;
  CHECK_FALSE(covers(importance, 9));
}

namespace {
const QuantizerEntry& plain() { return find_quantizer("plain-trellis"); }
QuantSpec spec_of(double lambda) {
  QuantSpec spec{plain().id, default_options(plain(), 16), Granularity::row, 0, LevelType::f32, CoderChoice::cheapest};
  plain().at_slope(spec.options, lambda);
  return spec;
}
}  // namespace

TEST_CASE("a method that sees layers gives units of a trellis, and what a budget needs", "[quant][layer]") {
  const std::size_t rows = 37, cols = 24;
  const auto values = samples::floats(rows * cols, 0, 3);
  const TensorView view = samples::view_of(DType::f32, std::as_bytes(std::span(values)));
  Workspace workspace;
  const RowWindow window{view, {}, cols, 16, &workspace};
  CHECK(traits_of(spec_of(1)).sees == Sees::layer);
  const LayerOutcome outcome = quantize_layer_unit(window, spec_of(1e-5));
  CHECK(outcome.unit.rows == rows);
  CHECK(outcome.unit.codes.size() == rows * cols);
  CHECK(outcome.unit.lanes() == 3);
  CHECK(outcome.unit.method == plain().id);
  CHECK(outcome.stats.squared_error > 0);
  CHECK(outcome.stats.squared_error < outcome.stats.energy);
  const SpreadHistogram histogram = layer_spreads(window, spec_of(1));
  CHECK(histogram.weights() == rows * cols);
  const double lambdas[] = {1e-4, 1e-5, 1e-6};
  const auto curve = plain().make(default_options(plain(), 16))->spread_curve(histogram, lambdas);
  REQUIRE(curve.size() == 3);
  CHECK(curve[0].bits < curve[1].bits);
  CHECK(curve[1].distortion > curve[2].distortion);
}

TEST_CASE("windows of a layer that cannot be are refused before a method sees them", "[quant][layer]") {
  const auto values = samples::floats(60, 0, 3);
  const TensorView view = samples::view_of(DType::f32, std::as_bytes(std::span(values)));
  Workspace workspace;
  CHECK_THROWS_AS(quantize_layer_unit({view, {}, 7, 16, &workspace}, spec_of(1)), Error);
  CHECK_THROWS_AS(quantize_layer_unit({view, {}, 0, 16, &workspace}, spec_of(1)), Error);
  CHECK_THROWS_AS(quantize_layer_unit({view, {}, 10, 0, &workspace}, spec_of(1)), Error);
  CHECK_THROWS_AS(quantize_layer_unit({view, {}, 10, 16, nullptr}, spec_of(1)), Error);
  const std::vector<float> gram(25, 1.0f);
  Importance other;
  other.length = 5, other.gram = gram;
  CHECK_THROWS_AS(quantize_layer_unit({view, other, 10, 16, &workspace}, spec_of(1)), Error);
}

TEST_CASE("methods that see values say so when they are asked for a layer, and the other way round", "[quant][layer]") {
  const auto values = samples::floats(60, 0, 3);
  const TensorView view = samples::view_of(DType::f32, std::as_bytes(std::span(values)));
  Workspace workspace;
  QuantSpec spec{find_quantizer("kmeans").id, {16}, Granularity::row, 0, LevelType::f32, CoderChoice::cheapest};
  CHECK_THROWS_AS(quantize_layer_unit({view, {}, 10, 16, &workspace}, spec), Error);
  CHECK_THROWS_AS(plain().make(default_options(plain(), 16))->fit_values(values, {}, workspace), Error);
}
