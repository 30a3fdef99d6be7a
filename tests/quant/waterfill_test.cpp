#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <random>

#include "lmq/base/error.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/codec/trellis_record.hpp"
#include "lmq/quant/quantizer.hpp"
#include "lmq/quant/trellis_rate.hpp"
#include "option_values.hpp"

using namespace lmq;

namespace {
/// Mean of outer products of vectors whose neighbours are alike and whose sizes differ.
std::vector<float> curvature(std::size_t size, double correlation, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::vector<double> matrix(size * size, 0.0), x(size), scale(size);
  for (double& s : scale) s = std::exp(normal(random));
  const std::size_t draws = 2 * size + 10;
  for (std::size_t t = 0; t < draws; ++t) {
    double before = 0;
    for (std::size_t i = 0; i < size; ++i) before = correlation * before + normal(random), x[i] = before * scale[i];
    for (std::size_t i = 0; i < size; ++i)
      for (std::size_t j = 0; j <= i; ++j) matrix[i * size + j] += x[i] * x[j] / static_cast<double>(draws);
  }
  for (std::size_t i = 0; i < size; ++i)
    for (std::size_t j = 0; j < i; ++j) matrix[j * size + i] = matrix[i * size + j];
  return {matrix.begin(), matrix.end()};
}

/// What is known of a layer.
enum class Known { nothing, columns, diagonals, weights, inputs, rows_and_inputs, outputs, both };

/// A layer in hand with curvature in blocks of outputs.
struct Sample {
  std::size_t rows, cols, block;
  std::vector<float> weights, gram, outer, row, col, each;
  Workspace workspace;

  Sample(std::size_t m, std::size_t n, std::size_t outer_rows, unsigned seed)
      : rows(m), cols(n), block(outer_rows), gram(curvature(n, 0.9, seed)) {
    std::mt19937 random(seed + 50);
    std::normal_distribution<float> normal;
    for (std::size_t i = 0; i < m * n; ++i)
      weights.push_back(normal(random) * 0.04F * (1 + static_cast<float>(i % n % 7)));
    for (std::size_t first = 0; first < m; first += block) {
      const std::size_t size = std::min(block, m - first);
      const std::vector<float> f = curvature(size, 0.8, seed + 2 + static_cast<unsigned>(first));
      std::vector<float> stored(block * block, 0.0F);
      for (std::size_t i = 0; i < size; ++i) {
        for (std::size_t j = 0; j < size; ++j) stored[i * block + j] = f[i * size + j] * 1e-3F;
        row.push_back(stored[i * block + i]);
      }
      outer.insert(outer.end(), stored.begin(), stored.end());
    }
    for (std::size_t j = 0; j < n; ++j) col.push_back(gram[j * n + j]);
    for (std::size_t i = 0; i < m; ++i)
      for (std::size_t j = 0; j < n; ++j) each.push_back(row[i] * col[j]);
  }

  [[nodiscard]] Importance importance(Known known) const {
    Importance made;
    made.length = cols;
    if (known == Known::columns || known == Known::inputs) made.kind = Importance::Kind::columns, made.values = col;
    if (known == Known::weights) made.kind = Importance::Kind::weights, made.values = each;
    if (known == Known::diagonals || known >= Known::rows_and_inputs)
      made.kind = Importance::Kind::outer, made.values = col, made.rows = row;
    if (known == Known::inputs || known == Known::rows_and_inputs || known == Known::both) made.gram = gram;
    if (known == Known::outputs || known == Known::both) {
      made.outer = outer, made.outer_rows = block;
      for (const float f : row) made.outer_mean += f / static_cast<double>(rows);
    }
    return made;
  }
  [[nodiscard]] TensorView view() const { return {DType::f32, std::as_bytes(std::span(weights)), weights.size()}; }
  /// tr(F E S E^T), undamped.
  [[nodiscard]] double loss(const std::vector<float>& values) const {
    double sum = 0;
    for (std::size_t first = 0; first < rows; first += block) {
      const std::size_t size = std::min(block, rows - first);
      std::vector<double> es(size * cols, 0.0);
      for (std::size_t i = 0; i < size; ++i)
        for (std::size_t k = 0; k < cols; ++k) {
          const std::size_t at = (first + i) * cols + k;
          const double e = double{weights[at]} - values[at];
          for (std::size_t j = 0; j < cols; ++j) es[i * cols + j] += e * gram[k * cols + j];
        }
      for (std::size_t i = 0; i < size; ++i)
        for (std::size_t k = 0; k < size; ++k) {
          const double f = outer[first * block + i * block + k];
          for (std::size_t j = 0; j < cols; ++j) {
            const std::size_t at = (first + k) * cols + j;
            sum += f * es[i * cols + j] * (double{weights[at]} - values[at]);
          }
        }
    }
    return sum;
  }
};

const QuantizerEntry& waterfill() { return find_quantizer("waterfill"); }

std::unique_ptr<Quantizer> at_step(double step, unsigned states = 8) {
  QuantizerOptions options{16};
  samples::set_option(options, waterfill(), "step", step);
  samples::set_option(options, waterfill(), "states", states);
  return waterfill().make(options);
}

struct Coded {
  TrellisUnit unit;
  UnitStats stats;
  double bits = 0;  ///< of the codes, a weight
  std::vector<float> values;
};
Coded code(Sample& sample, Known known, const Quantizer& method) {
  const TensorView view = sample.view();
  const Importance importance = sample.importance(known);
  const std::uint64_t lane = lane_rows_of(method.traits().lane_rows, importance.outer_rows);
  Coded coded;
  coded.unit.method = waterfill().id, coded.unit.source = DType::f32;
  coded.stats = method.quantize_layer({view, importance, sample.cols, lane, &sample.workspace}, coded.unit);
  const EncodedRecord record = encode_trellis_record(coded.unit);
  coded.bits = 8.0 * static_cast<double>(record.ledger.codes) / static_cast<double>(view.count);
  coded.values.resize(view.count);
  decode_record_values(record.bytes, coded.values, "x");
  return coded;
}
SpreadHistogram spreads(Sample& sample, Known known, const Quantizer& method) {
  const TensorView view = sample.view();
  const Importance importance = sample.importance(known);
  const std::uint64_t lane = lane_rows_of(method.traits().lane_rows, importance.outer_rows);
  return method.spreads({view, importance, sample.cols, lane, &sample.workspace});
}

constexpr Known kAll[] = {Known::nothing, Known::columns,         Known::diagonals, Known::weights,
                          Known::inputs,  Known::rows_and_inputs, Known::outputs,   Known::both};
}  // namespace

TEST_CASE("waterfill: whatever is known of a layer, it comes back as its record has it, with the errors measured",
          "[waterfill]") {
  const auto [rows, cols, block] =
      GENERATE(std::array<std::size_t, 3>{1, 1, 1}, std::array<std::size_t, 3>{1, 40, 1},
               std::array<std::size_t, 3>{50, 1, 50}, std::array<std::size_t, 3>{70, 33, 16});
  for (const Known known : kAll) {
    Sample sample(rows, cols, block, 3);
    const Coded coded = code(sample, known, *at_step(known == Known::nothing ? 0.01 : 0.003));
    const UnitStats again = measure_error(sample.view(), coded.values, sample.importance(known));
    CAPTURE(rows, cols, static_cast<int>(known));
    REQUIRE(coded.unit.rows == rows);
    REQUIRE(coded.unit.cols == cols);
    REQUIRE(coded.unit.method == waterfill().id);
    REQUIRE(again.squared_error == coded.stats.squared_error);
    REQUIRE(again.weighted_error == coded.stats.weighted_error);
    REQUIRE(again.largest_error == coded.stats.largest_error);
  }
}

TEST_CASE(
    "waterfill: where diagonals are all that is known values keep the scale of the weights, else their errors are "
    "least",
    "[waterfill]") {
  const auto scale = [](const Sample& sample, const std::vector<float>& values, bool weighted) {
    double both = 0, own = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double h = weighted ? sample.each[i] : 1, w = sample.weights[i];
      both += h * w * values[i], own += h * w * w;
    }
    return both / own;
  };
  for (const double bits : {1.5, 3.0}) {
    Sample sample(96, 64, 96, 4);
    for (const Known known : {Known::diagonals, Known::weights}) {
      QuantizerOptions options{16};
      for (const char* side : {"damping-inputs", "damping-outputs"})
        samples::set_option(options, waterfill(), side, 0.0);
      samples::set_option(options, waterfill(), "rate", bits);
      const Coded coded = code(sample, known, *waterfill().make(options));
      CAPTURE(bits, static_cast<int>(known));
      CHECK(scale(sample, coded.values, true) == Approx(1).epsilon(known == Known::diagonals ? 0.005 : 0.02));
      CHECK(measure_error(sample.view(), coded.values, sample.importance(known)).squared_error ==
            coded.stats.squared_error);
    }
    QuantizerOptions options{16};
    samples::set_option(options, waterfill(), "rate", bits);
    const Coded plain = code(sample, Known::nothing, *waterfill().make(options));
    CHECK(scale(sample, plain.values, false) < 1 - 0.7 * plain.stats.squared_error / plain.stats.energy);
  }
}

TEST_CASE("waterfill: at the same bits the loss falls with everything that is known of it", "[waterfill]") {
  Sample sample(192, 128, 96, 1);
  const auto loss_at = [&](Known known, double bits) {
    const SpreadHistogram histogram = spreads(sample, known, *at_step(1));
    const Coded coded = code(sample, known, *at_step(step_for_bits(histogram, 8, bits)));
    return sample.loss(coded.values) * std::exp2(2 * (coded.bits - bits));  // at exactly those bits
  };
  const double both = loss_at(Known::both, 3), rows = loss_at(Known::rows_and_inputs, 3),
               inputs = loss_at(Known::inputs, 3), nothing = loss_at(Known::nothing, 3);
  CAPTURE(both, rows, inputs, nothing);
  REQUIRE(both < 0.8 * rows);
  REQUIRE(rows < 0.8 * inputs);
  REQUIRE(inputs < 0.5 * nothing);
}

TEST_CASE("waterfill: where rows are tokens the frequent ones are nearer, whatever windows they come in",
          "[waterfill]") {
  constexpr std::size_t kTokens = 4000, kCols = 16;
  Sample sample(kTokens, kCols, kCols, 5);
  for (float& w : sample.weights) w /= 0.04F;
  const auto squares = [&](double prior, std::size_t windows) {
    QuantizerOptions options{16};
    samples::set_option(options, waterfill(), "step", 0.3);
    samples::set_option(options, waterfill(), "token-prior", prior);
    std::vector<double> error(kTokens, 0.0);
    const Importance nothing;
    for (std::size_t w = 0; w < windows; ++w) {
      const std::size_t rows = kTokens / windows, first = w * rows;
      const std::span<const float> part = std::span(sample.weights).subspan(first * kCols, rows * kCols);
      const TensorView view{DType::f32, std::as_bytes(part), part.size()};
      TrellisUnit unit;
      unit.method = waterfill().id, unit.source = DType::f32;
      waterfill().make(options)->quantize_layer({view, nothing, kCols, 256, &sample.workspace, kTokens, first}, unit);
      std::vector<float> values(part.size());
      decode_record_values(encode_trellis_record(unit).bytes, values, "x");
      for (std::size_t i = 0; i < values.size(); ++i)
        error[first + i / kCols] += (double{part[i]} - values[i]) * (double{part[i]} - values[i]);
    }
    return error;
  };
  const auto mean = [](const std::vector<double>& of, std::size_t begin, std::size_t end) {
    double sum = 0;
    for (std::size_t i = begin; i < end; ++i) sum += of[i];
    return sum / static_cast<double>(end - begin);
  };
  set_thread_count(1);  // rows of 16 weights are thousands of short diagonals
  const std::vector<double> known = squares(0.5, 1), parts = squares(0.5, 4), alike = squares(0, 1);
  set_thread_count(0);
  // (1 + t / 1000)^-1/2 around t = 100 and 3900: .953 and .452
  CHECK(mean(known, 3800, 4000) / mean(known, 0, 200) == Approx(0.953 / 0.452).epsilon(0.15));
  CHECK(mean(parts, 3800, 4000) / mean(parts, 0, 200) == Approx(0.953 / 0.452).epsilon(0.15));
  CHECK(mean(alike, 3800, 4000) / mean(alike, 0, 200) == Approx(1).epsilon(0.1));
}

TEST_CASE("waterfill: spreads say the bits before any work, within .05", "[waterfill]") {
  for (const Known known : kAll)
    for (const unsigned states : {1U, 8U})
      for (const double bits : {2.0, 3.0, 4.0}) {
        Sample sample(256, 192, 128, 7);
        const SpreadHistogram histogram = spreads(sample, known, *at_step(1, states));
        REQUIRE(histogram.weights() == 256 * 192);
        const double step = step_for_bits(histogram, states, bits);
        const Coded coded = code(sample, known, *at_step(step, states));
        CAPTURE(static_cast<int>(known), states, bits, coded.bits);
        CHECK(std::abs(coded.bits - bits) < 0.05);
      }
}

TEST_CASE("waterfill: points of the curve are steps at their slopes, and slopes are what a bit saves", "[waterfill]") {
  Sample sample(256, 192, 256, 2);
  const auto method = at_step(1);
  const SpreadHistogram histogram = spreads(sample, Known::both, *method);
  const double fine = slope_of_step(8, step_for_bits(histogram, 8, 5));
  const std::vector<double> lambdas{fine * 1.02, fine, 0};
  const auto points = method->spread_curve(histogram, std::span(lambdas).first(2));
  REQUIRE(points.size() == 2);
  REQUIRE(points[1].bits == Approx(5.0 * 256 * 192).epsilon(1e-4));
  REQUIRE((points[0].distortion - points[1].distortion) / (points[1].bits - points[0].bits) ==
          Approx(fine).epsilon(0.03));
  QuantizerOptions options = default_options(waterfill(), 16);
  waterfill().at_slope(options, fine);
  REQUIRE(slope_of_step(8, std::get<double>(options.values[0])) == Approx(fine));
  const Coded coded = code(sample, Known::both, *waterfill().make(options));
  REQUIRE(coded.bits == Approx(5).margin(0.06));
}

TEST_CASE("waterfill: the same codes on any threads, and whatever the workspace holds", "[waterfill]") {
  Sample sample(300, 70, 100, 4);
  const auto method = at_step(0.002);
  const auto codes_of = [&](std::size_t threads) {
    set_thread_count(threads);
    Coded coded = code(sample, Known::both, *method);
    set_thread_count(0);
    return coded.unit.codes;
  };
  const auto one = codes_of(1);
  REQUIRE(codes_of(3) == one);
  sample.workspace = Workspace();
  REQUIRE(codes_of(2) == one);
}

TEST_CASE("waterfill: without a step the rate is met as forecast", "[waterfill]") {
  Sample sample(256, 192, 128, 9);
  QuantizerOptions options = default_options(waterfill(), 8);
  const Coded coded = code(sample, Known::both, *waterfill().make(options));
  REQUIRE(coded.bits == Approx(3).margin(0.06));
}

TEST_CASE("waterfill: options that contradict each other are refused", "[waterfill]") {
  QuantizerOptions options = default_options(waterfill(), 16);
  samples::set_option(options, waterfill(), "step", 1);  // beside the rate of 16 levels
  REQUIRE_THROWS_AS(waterfill().complete(options, true), Error);
  options = default_options(waterfill(), 16);
  samples::set_option(options, waterfill(), "states", 7);
  REQUIRE_THROWS_AS(waterfill().complete(options, true), Error);
}
