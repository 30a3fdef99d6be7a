#include <catch2/catch.hpp>
#include <cmath>
#include <random>
#include <vector>

#include "lmq/base/error.hpp"
#include "lmq/codec/trellis_record.hpp"
#include "lmq/quant/cancellation.hpp"
#include "lmq/quant/curvature_factor.hpp"
#include "lmq/quant/trellis_layer.hpp"
#include "matrix_samples.hpp"

using namespace lmq;
using samples::covariance;
using samples::same_bits;

namespace {
/// A layer with curvature on both sides and the steps that follow it.
struct Layer {
  std::size_t rows, cols;
  std::vector<double> outputs, inputs;
  CurvatureFactor a, b;
  std::vector<float> weights, row_step, col_step;
  std::vector<std::int8_t> row_spread, col_spread;
  float c = 0.02F;

  Layer(std::size_t m, std::size_t n, unsigned seed)
      : rows(m), cols(n), outputs(covariance(m, m + 5, seed)), inputs(covariance(n, n + 9, seed + 1)) {
    a = factor_curvature(outputs, m, 0.2, mean_diagonal(outputs, m), "outputs");
    b = factor_curvature(inputs, n, 0.003, mean_diagonal(inputs, n), "inputs");
    std::mt19937 random(seed + 2);
    std::normal_distribution<float> normal(0, 0.05F);
    for (std::size_t i = 0; i < m * n; ++i) weights.push_back(normal(random));
    for (std::size_t i = 0; i < m; ++i) row_step.push_back(static_cast<float>(c / a.pivot[i]));
    for (std::size_t j = 0; j < n; ++j) col_step.push_back(static_cast<float>(1 / b.pivot[j]));
    row_spread.assign(m, 16), col_spread.assign(n, 0);
  }
  [[nodiscard]] std::vector<float> errors(const CancelledCodes& coded) const {
    std::vector<float> made(weights);
    for (std::size_t i = 0; i < made.size(); ++i) made[i] -= coded.values[i];
    return made;
  }
  [[nodiscard]] CancellationUnit unit(bool with_outputs, bool with_inputs) const {
    CancellationUnit made;
    made.rows = rows, made.cols = cols, made.weights = weights;
    if (with_outputs) made.outputs = a.unit;
    if (with_inputs) made.inputs = b.unit;
    made.row_step = row_step, made.col_step = col_step, made.row_spread = row_spread, made.col_spread = col_spread;
    return made;
  }
};

TrellisRates rates_of(unsigned states) {
  return make_trellis_rates(spread_family(), states, states == 1 ? kScalarRho : kTrellisRho);
}

/// tr(F E S E^T) with the damped factors.
double loss(const Layer& layer, const CancelledCodes& coded) {
  const std::vector<float> errors = layer.errors(coded);
  const std::size_t m = layer.rows, n = layer.cols;
  std::vector<double> es(m * n, 0);
  for (std::size_t i = 0; i < m; ++i)
    for (std::size_t k = 0; k < n; ++k)
      for (std::size_t j = 0; j < n; ++j)
        es[i * n + j] += errors[i * n + k] * (layer.inputs[k * n + j] + (k == j ? layer.b.damping : 0.0));
  double sum = 0;
  for (std::size_t i = 0; i < m; ++i)
    for (std::size_t k = 0; k < m; ++k)
      for (std::size_t j = 0; j < n; ++j)
        sum += (layer.outputs[i * m + k] + (i == k ? layer.a.damping : 0.0)) * es[k * n + j] * errors[i * n + j];
  return sum;
}
}  // namespace

TEST_CASE("cancellation: in bands it gives the codes and values of the two sums in plain loops", "[matrix][twin]") {
  const unsigned states = GENERATE(1u, 8u);
  for (const std::size_t rows : {1u, 2u, 11u, 12u, 13u, 40u})
    for (const std::size_t cols : {1u, 2u, 31u, 70u, 150u}) {
      const Layer layer(rows, cols, static_cast<unsigned>(rows * cols));
      for (const int sides : {0, 1, 2, 3}) {
        const CancellationUnit unit = layer.unit((sides & 1) != 0, (sides & 2) != 0);
        const CancelledCodes plain = cancel_reference(unit, rates_of(states)), bands = cancel(unit, rates_of(states));
        CAPTURE(states, rows, cols, sides);
        REQUIRE(bands.codes == plain.codes);
        REQUIRE(same_bits(bands.values, plain.values));
        REQUIRE(bands.targets == plain.targets);
        REQUIRE(bands.squared_steps == plain.squared_steps);
      }
    }
}

TEST_CASE("cancellation: the loss of all errors together is the sum of squared steps", "[matrix]") {
  const Layer layer(60, 130, 7);
  for (const unsigned states : {1u, 8u}) {
    const CancelledCodes coded = cancel(layer.unit(true, true), rates_of(states));
    const double squared = double{layer.c} * layer.c * coded.squared_steps;
    REQUIRE(loss(layer, coded) == Approx(squared).epsilon(2e-3));  // targets are rounded to 1/256 step
    REQUIRE(squared < 0.8 * loss(layer, cancel(layer.unit(false, false), rates_of(states))));
  }
}

TEST_CASE("cancellation: targets are what the formula says of all errors below and to the right", "[matrix]") {
  for (const std::size_t rows : {1u, 3u, 37u})
    for (const std::size_t cols : {1u, 2u, 65u}) {
      const Layer layer(rows, cols, static_cast<unsigned>(100 * rows + cols));
      const CancelledCodes coded = cancel(layer.unit(true, true), rates_of(8));
      const std::vector<float> errors = layer.errors(coded);
      for (std::size_t i = 0; i < rows; ++i)
        for (std::size_t j = 0; j < cols; ++j) {
          double y = layer.weights[i * cols + j] - errors[i * cols + j];
          for (std::size_t p = i; p < rows; ++p)
            for (std::size_t q = j; q < cols; ++q)
              y += double{layer.a.unit[p * rows + i]} * errors[p * cols + q] * layer.b.unit[q * cols + j];
          const double step = double{layer.row_step[i]} * layer.col_step[j];
          CAPTURE(rows, cols, i, j);
          REQUIRE(y / step == Approx(coded.targets[i * cols + j] / 256.0).margin(0.5 / 256 + 1e-4));
        }
    }
}

TEST_CASE("cancellation: with diagonal curvature no error moves a target", "[matrix]") {
  constexpr std::size_t kRows = 20, kCols = 33;
  Layer layer(kRows, kCols, 5);
  std::ranges::fill(layer.a.unit, 0.0F);
  std::ranges::fill(layer.b.unit, 0.0F);
  for (std::size_t i = 0; i < kRows; ++i) layer.a.unit[i * kRows + i] = 1;
  for (std::size_t j = 0; j < kCols; ++j) layer.b.unit[j * kCols + j] = 1;
  const CancelledCodes through = cancel(layer.unit(true, true), rates_of(8)),
                       plain = cancel(layer.unit(false, false), rates_of(8));
  REQUIRE(through.targets == plain.targets);
  REQUIRE(cancel(layer.unit(true, true), rates_of(1)).codes == cancel(layer.unit(false, false), rates_of(1)).codes);
}

TEST_CASE("cancellation: weights and steps times a power of two give the same codes and values as often", "[matrix]") {
  Layer layer(30, 71, 3);
  const CancelledCodes before = cancel(layer.unit(true, true), rates_of(8));
  for (float& w : layer.weights) w *= 8;
  for (float& step : layer.row_step) step *= 8;
  const CancelledCodes after = cancel(layer.unit(true, true), rates_of(8));
  REQUIRE(after.codes == before.codes);
  for (std::size_t i = 0; i < before.values.size(); ++i) REQUIRE(after.values[i] == 8 * before.values[i]);
}

TEST_CASE("cancellation: targets that no code reaches are counted", "[matrix]") {
  Layer layer(4, 5, 3);
  layer.weights[7] = 1e30F;
  REQUIRE(cancel(layer.unit(false, false), rates_of(8)).clamped == 1);
}

TEST_CASE("cancellation: nothing to code", "[matrix]") {
  const CancelledCodes none = cancel({}, rates_of(8));
  REQUIRE(none.codes.empty());
}

TEST_CASE("cancellation: values are what the record of the codes decodes to", "[matrix]") {
  Layer layer(24, 50, 9);
  TrellisUnit stored;
  stored.states = 8, stored.rows = 24, stored.cols = 50, stored.lane_rows = 24, stored.step = layer.c;
  for (std::size_t i = 0; i < 24; ++i) {
    stored.row_step.push_back(static_cast<std::int16_t>(std::lrint(-8 * std::log2(layer.a.pivot[i]))));
    layer.row_step[i] = layer.c * octave_eighths(stored.row_step[i]);
  }
  for (std::size_t j = 0; j < 50; ++j) {
    stored.col_step.push_back(static_cast<std::int16_t>(std::lrint(-8 * std::log2(layer.b.pivot[j]))));
    layer.col_step[j] = octave_eighths(stored.col_step[j]);
  }
  stored.row_spread = layer.row_spread, stored.col_spread = layer.col_spread;
  const CancelledCodes coded = cancel(layer.unit(true, true), rates_of(8));
  stored.codes = coded.codes;
  std::vector<float> values(layer.weights.size());
  decode_record_values(encode_trellis_record(stored).bytes, values, "x");
  REQUIRE(same_bits(values, coded.values));
}

namespace {
/// Q diag(spectrum) Q^T with a rotation of random reflections.
std::vector<double> rotated(const std::vector<double>& spectrum, unsigned seed) {
  const std::size_t n = spectrum.size();
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::vector<double> matrix(n * n, 0), v(n), image(n);
  for (std::size_t k = 0; k < n; ++k) matrix[k * n + k] = spectrum[k];
  for (int reflection = 0; reflection < 12; ++reflection) {
    double norm = 0, inner = 0;
    for (double& x : v) x = normal(random), norm += x * x;
    for (std::size_t i = 0; i < n; ++i) {
      image[i] = 0;
      for (std::size_t j = 0; j < n; ++j) image[i] += matrix[i * n + j] * v[j];
      inner += image[i] * v[i];
    }
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t j = 0; j < n; ++j)
        matrix[i * n + j] += -2 / norm * (v[i] * image[j] + image[i] * v[j]) + 4 * inner / norm / norm * v[i] * v[j];
  }
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < i; ++j) matrix[j * n + i] = matrix[i * n + j];
  return matrix;
}

/// Bits a weight that reverse water-filling needs for this mean loss.
double water_filled_bits(const std::vector<double>& spectrum, double loss) {
  double low = 0, high = 10;
  const double n = static_cast<double>(spectrum.size());
  for (int step = 0; step < 100; ++step) {
    const double level = (low + high) / 2;
    double sum = 0;
    for (const double s : spectrum) sum += std::min(s, level) / n;
    (sum < loss ? low : high) = level;
  }
  double bits = 0;
  for (const double s : spectrum) bits += s > low ? 0.5 * std::log2(s / low) / n : 0.0;
  return bits;
}

struct LayerResult {
  double bits, code_bits, loss, squared_steps;  ///< a weight
};
// More than 5 parameters: what layers of these tests differ in.
LayerResult code_coloured(const std::vector<double>& inputs, std::size_t rows, std::size_t cols, double step,
                          unsigned states, bool with_inputs) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  std::vector<float> weights(rows * cols);
  for (float& w : weights) w = normal(random);
  LayerSides sides;
  const CurvatureFactor factor = factor_curvature(inputs, cols, 1e-6, mean_diagonal(inputs, cols), "x");
  if (with_inputs) sides.inputs = &factor;
  const CodedLayer coded =
      code_layer({weights, rows, cols}, sides, {.states = states, .step = static_cast<float>(step)});
  const EncodedRecord record = encode_trellis_record(coded.unit);
  std::vector<float> values(weights.size());
  decode_record_values(record.bytes, values, "x");
  const double count = static_cast<double>(weights.size());
  LayerResult result{8.0 * static_cast<double>(record.bytes.size()) / count,
                     8.0 * static_cast<double>(record.ledger.codes) / count, 0, coded.squared_steps / count};
  std::vector<double> error(cols);
  for (std::size_t i = 0; i < rows; ++i) {
    for (std::size_t j = 0; j < cols; ++j) error[j] = double{weights[i * cols + j]} - values[i * cols + j];
    for (std::size_t k = 0; k < cols; ++k) {
      double sum = 0;
      for (std::size_t j = 0; j < cols; ++j) sum += inputs[k * cols + j] * error[j];
      result.loss += sum * error[k] / count;
    }
  }
  return result;
}
}  // namespace

// Bounds: .093 bit measured with 8 states and .261 with one; 512 rows of 128, so runs of at most 128 weights.
TEST_CASE("layer: rotated coloured inputs are coded near the bound of reverse water-filling", "[matrix][slow]") {
  constexpr std::size_t kRows = 512, kCols = 128;
  std::vector<double> spectrum(kCols);
  for (std::size_t j = 0; j < kCols; ++j) spectrum[j] = std::pow(static_cast<double>(j + 1), -1.5);
  const auto inputs = rotated(spectrum, 3);
  const LayerResult high = code_coloured(inputs, kRows, kCols, 0.0085, 8, true);
  const double bound = water_filled_bits(spectrum, high.loss);
  CAPTURE(high.bits, high.code_bits, high.loss, bound);
  REQUIRE(high.code_bits - bound < 0.11);
  REQUIRE(high.code_bits - bound > 0);
  REQUIRE(high.bits - high.code_bits < 0.06);
  const LayerResult scalar = code_coloured(inputs, kRows, kCols, 0.015, 1, true);
  REQUIRE(scalar.code_bits - water_filled_bits(spectrum, scalar.loss) > 0.2);
  REQUIRE(high.squared_steps == Approx(0.27).margin(0.02));
  REQUIRE(scalar.squared_steps == Approx(0.085).margin(0.005));
}

TEST_CASE("layer: odd layers are coded and come back as the record has them", "[matrix]") {
  const std::string kind = GENERATE("zeros", "constant", "one value in a million", "tiny");
  const auto [rows, cols] =
      GENERATE(std::pair<std::size_t, std::size_t>{1, 1}, std::pair<std::size_t, std::size_t>{1, 300},
               std::pair<std::size_t, std::size_t>{300, 1}, std::pair<std::size_t, std::size_t>{131, 67});
  std::vector<float> weights(rows * cols, kind == "constant" ? 0.7F : kind == "tiny" ? 1e-36F : 0.0F);
  if (kind == "one value in a million") weights[weights.size() / 2] = 900;
  LayerSides sides;
  const auto s = covariance(cols, 2, 1), f = covariance(rows, 2, 2);  // of rank 2
  const CurvatureFactor inputs = factor_curvature(s, cols, 0.003, mean_diagonal(s, cols), "x");
  sides.inputs = &inputs;
  sides.outputs.push_back(factor_curvature(f, rows, 0.2, mean_diagonal(f, rows), "x"));
  const CodedLayer coded = code_layer({weights, rows, cols}, sides, {.states = 8, .step = 0.01F});
  std::vector<float> values(weights.size());
  decode_record_values(encode_trellis_record(coded.unit).bytes, values, "x");
  CAPTURE(kind, rows, cols);
  REQUIRE(same_bits(values, coded.values));
  if (kind == "zeros") REQUIRE(std::ranges::all_of(values, [](float v) { return v == 0; }));
  if (kind == "one value in a million") REQUIRE(values[weights.size() / 2] == Approx(900).epsilon(0.01));
}

TEST_CASE("layer: from a fifth of a bit to twelve", "[matrix]") {
  const auto inputs = rotated(std::vector<double>(64, 1.0), 3);
  const LayerResult fine = code_coloured(inputs, 256, 64, 0x1p-11, 8, true);
  REQUIRE(fine.code_bits == Approx(12.05).margin(0.1));
  REQUIRE(fine.squared_steps == Approx(0.275).margin(0.015));
  const LayerResult coarse = code_coloured(inputs, 256, 64, 1.7, 8, true);
  REQUIRE(coarse.code_bits < 0.3);
  REQUIRE(coarse.loss < 1.01);
}

TEST_CASE("layer: a step so fine that codes do not reach is refused", "[matrix]") {
  try {
    (void)code_layer({std::vector<float>(12, 1.0F), 3, 4}, {}, {.states = 8, .step = 1e-9F});
    FAIL("not refused");
  } catch (const Error& error) {
    REQUIRE(error.code == Errc::usage);
  }
}

TEST_CASE("layer: a step that no code reaches is made as fine as codes reach where that is asked for", "[matrix]") {
  std::vector<float> weights(12, 0.0F);
  weights[5] = 3;
  weights[7] = -1e-3F;
  const CodedLayer coded = code_layer({weights, 3, 4}, {}, {.states = 8, .step = 1e-12F, .coarsen = true});
  REQUIRE(coded.unit.step == Approx(3 * 0x1p-18));
  for (std::size_t i = 0; i < weights.size(); ++i)
    REQUIRE(std::abs(coded.values[i] - weights[i]) <= 2 * coded.unit.step);
}

TEST_CASE("layer: transposed, with both sides exchanged, it costs as much", "[matrix]") {
  constexpr std::size_t kRows = 90, kCols = 120;
  const Layer layer(kRows, kCols, 12);
  std::vector<float> across(kRows * kCols);
  for (std::size_t i = 0; i < kRows; ++i)
    for (std::size_t j = 0; j < kCols; ++j) across[j * kRows + i] = layer.weights[i * kCols + j];
  LayerSides sides, exchanged;
  sides.outputs = {layer.a}, sides.inputs = &layer.b;
  exchanged.outputs = {layer.b}, exchanged.inputs = &layer.a;
  const CodedLayer one = code_layer({layer.weights, kRows, kCols}, sides, {.step = layer.c}),
                   two = code_layer({across, kCols, kRows}, exchanged, {.step = layer.c});
  REQUIRE(two.squared_steps == Approx(one.squared_steps).epsilon(0.05));
  REQUIRE(static_cast<double>(encode_trellis_record(two.unit).bytes.size()) ==
          Approx(static_cast<double>(encode_trellis_record(one.unit).bytes.size())).epsilon(0.03));
}

TEST_CASE("layer: without curvature the steps are all alike and the record says nothing of them", "[matrix]") {
  const std::size_t rows = GENERATE(1u, 2u, 64u), cols = GENERATE(1u, 64u, 130u);
  const LayerResult plain = code_coloured(std::vector<double>(cols * cols, 0.0), rows, cols, 0.4, 8, false);
  CAPTURE(rows, cols, plain.bits);
  if (rows * cols >= 4096) REQUIRE(plain.bits - plain.code_bits < 0.25);
}

TEST_CASE("layer: no rows, no columns", "[matrix]") {
  for (const auto& [rows, cols] : std::vector<std::pair<std::size_t, std::size_t>>{{0, 7}, {7, 0}, {0, 0}}) {
    const CodedLayer coded = code_layer({{}, rows, cols}, {}, {});
    REQUIRE(encode_trellis_record(coded.unit).bytes.size() < 32);
  }
}

TEST_CASE("layer: rows whose outputs matter get finer steps", "[matrix]") {
  std::vector<float> weights(8 * 40, 0.3F);
  LayerSides sides;
  for (int i = 0; i < 8; ++i) sides.row_curvature.push_back(i < 4 ? 1.0 : 16.0);
  const CodedLayer coded = code_layer({weights, 8, 40}, sides, {.states = 8, .step = 0.1F});
  for (int i = 0; i < 8; ++i) REQUIRE(coded.unit.row_step[static_cast<std::size_t>(i)] == (i < 4 ? 0 : -16));
}
