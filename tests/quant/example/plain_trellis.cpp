// A method that sees layers, and what it takes to be one: steps by the mean curvature, a trellis, nothing passed on.
#include <algorithm>
#include <array>
#include <cmath>

#include "lmq/base/error.hpp"
#include "lmq/kernels/rate_cells.hpp"
#include "lmq/kernels/trellis.hpp"
#include "lmq/kernels/widen.hpp"
#include "lmq/quant/quantizer.hpp"

namespace lmq {
namespace {

constexpr unsigned kStates = 8;
constexpr double kDistortion = 0.275, kRateOfOne = 1.25;  // squared steps a weight, and bits where spread is the step
struct PlainOptions {
  std::optional<double> lambda = {};
};
constexpr auto kOptions = option_table(
    number_option<&PlainOptions::lambda>("lambda", "squared error that one bit is worth", 0, 1e300).spending());

double mean(std::span<const float> values, std::size_t count, std::size_t stride) {
  double sum = 0;
  for (std::size_t i = 0; i < count; ++i) sum += double{values[i * stride]};
  return count > 0 ? sum / static_cast<double>(count) : 0;
}

/// Curvature of a weight as if all were alike, > 0.
double mean_curvature(const Importance& importance) {
  double inputs = 1, outputs = 1;
  if (!importance.gram.empty())
    inputs = mean(importance.gram, importance.length, importance.length + 1);
  else if (!importance.values.empty())
    inputs = mean(importance.values, importance.values.size(), 1);
  if (!importance.outer.empty())
    outputs = importance.outer_mean;
  else if (!importance.rows.empty())
    outputs = mean(importance.rows, importance.rows.size(), 1);
  return inputs * outputs > 0 ? inputs * outputs : 1;
}

struct Rows {
  std::vector<float> values;
  std::vector<double> spread;  ///< root mean square
};

Rows read_rows(const RowWindow& window) {
  Rows rows;
  rows.values.resize(window.view.count);
  widen(window.view.dtype, window.view.bytes, rows.values);
  for (std::size_t begin = 0; begin < rows.values.size(); begin += window.cols) {
    double sum = 0;
    for (std::size_t j = 0; j < window.cols; ++j) sum += double{rows.values[begin + j]} * rows.values[begin + j];
    rows.spread.push_back(std::sqrt(sum / static_cast<double>(window.cols)));
  }
  return rows;
}

class PlainTrellis final : public Quantizer {
 public:
  PlainTrellis(std::size_t levels, const PlainOptions& options)
      : Quantizer({.sees = Sees::layer, .lane_rows = 16}), levels_(levels), lambda_(options.lambda) {}

  [[nodiscard]] UnitStats quantize_layer(const RowWindow& window, TrellisUnit& unit) const override {
    const Rows rows = read_rows(window);
    unit.states = kStates;
    unit.rows = rows.spread.size(), unit.cols = window.cols;
    unit.lane_rows = std::min(window.lane_rows, unit.rows);
    unit.step = step_of(rows, window.importance);
    unit.row_step.assign(unit.rows, 0), unit.col_step.assign(unit.cols, 0);
    unit.row_spread.clear(), unit.col_spread.assign(unit.cols, 0);
    for (const double spread : rows.spread)
      unit.row_spread.push_back(static_cast<std::int8_t>(
          std::clamp(kSpreadOfOne + 3 * plain_log2(std::max(spread / unit.step, 0x1p-10)), 0.0, 60.0)));
    unit.codes.resize(rows.values.size());
    std::vector<float> decoded(rows.values.size());
    for (std::uint64_t first = 0; first < unit.rows; first += unit.lane_rows) code_lane(rows, first, unit, decoded);
    return measure_error(window.view, decoded, window.importance);
  }

  [[nodiscard]] SpreadHistogram spreads(const RowWindow& window) const override {
    const double root = std::sqrt(mean_curvature(window.importance));
    SpreadHistogram histogram;
    for (const double spread : read_rows(window).spread)
      histogram.add(static_cast<int>(std::floor(8 * plain_log2(std::max(spread * root, 0x1p-70)) + 0.5)), window.cols);
    return histogram;
  }

  [[nodiscard]] std::vector<RatePoint> spread_curve(const SpreadHistogram& histogram,
                                                    std::span<const double> lambdas) const override {
    std::vector<RatePoint> curve;
    for (const double lambda : lambdas) {
      RatePoint point{lambda, 0, 0, 0};
      for (const SpreadHistogram::Bin& bin : histogram.bins()) {
        const double square = lambda / kTrellisRho, weights = static_cast<double>(bin.weights);
        point.bits += weights * std::max(0.02, plain_log2(bin.square / square) / 2 + kRateOfOne);
        point.distortion += weights * std::min(bin.square, kDistortion * square);
      }
      curve.push_back(point);
    }
    return curve;
  }

  [[nodiscard]] LayerNeeds layer_needs(const LayerShape& shape) const override {
    const std::uint64_t weights = shape.rows * shape.cols;
    return {.scratch_bytes = weights * 8 + shape.lane_rows * shape.cols * 48,
            .factor_seconds = 0,
            .seconds = 120e-9 * static_cast<double>(weights)};
  }

 private:
  /// c / root of the curvature; where no lambda is given that of log2(levels) bits a weight.
  [[nodiscard]] float step_of(const Rows& rows, const Importance& importance) const {
    double square = lambda_.value_or(0) / kTrellisRho / mean_curvature(importance);
    if (!lambda_) {
      for (const double spread : rows.spread) square += spread * spread / static_cast<double>(rows.spread.size());
      const double fit = 1.0 / static_cast<double>(levels_);
      square *= 4 * fit * fit;
    }
    return static_cast<float>(std::clamp(std::sqrt(square), 0x1p-60, 0x1p60));
  }

  static void code_lane(const Rows& rows, std::uint64_t first, TrellisUnit& unit, std::vector<float>& decoded) {
    const std::uint64_t count = std::min(unit.lane_rows, unit.rows - first);
    std::vector<std::int32_t> target, codes;
    std::vector<std::uint8_t> spread;
    std::vector<std::size_t> place;
    for (std::uint64_t d = count + unit.cols - 1; d-- > 0;)
      for (std::uint64_t i = std::min(d + 1, count); i-- > 0 && d - i < unit.cols;) {
        place.push_back((first + i) * unit.cols + (d - i));
        const double steps = double{rows.values[place.back()]} / unit.step * kTrellisOne;
        target.push_back(static_cast<std::int32_t>(
            std::floor(std::clamp(steps, -1.0 * kMaxTrellisTarget, 1.0 * kMaxTrellisTarget - 1) + 0.5)));
        spread.push_back(static_cast<std::uint8_t>(unit.row_spread[first + i]));
      }
    codes.resize(target.size());
    TrellisScratch scratch;
    scratch.reserve(target.size());
    const TrellisRates rates = make_trellis_rates(spread_family(), kStates, kTrellisRho);
    trellis_search(rates, {target, spread, {}}, 0, scratch, codes);
    unsigned state = 0;
    for (std::size_t k = 0; k < codes.size(); ++k) {
      unit.codes[place[k]] = codes[k];
      decoded[place[k]] = static_cast<float>(trellis_value(kStates, state & 1, spread[k], codes[k])) * unit.step;
      state = trellis_next(trellis_taps(kStates), state, codes[k]);
    }
  }

  std::size_t levels_;
  std::optional<double> lambda_;
};

std::unique_ptr<Quantizer> make(std::size_t levels, const PlainOptions& options) {
  return std::make_unique<PlainTrellis>(levels, options);
}

void at_slope(PlainOptions& options, std::size_t, double slope) { options.lambda = slope; }

}  // namespace

extern const QuantizerEntry kPlainTrellis;
const QuantizerEntry kPlainTrellis{
    .id = 65534,  // never written by a program that is installed
    .name = "plain-trellis",
    .summary = "a trellis over whole layers, one step by their mean curvature",
    .source = "Marcellin & Fischer 1990, Trellis coded quantization of memoryless and Gauss-Markov sources",
    .make = make_with<kOptions, make>,
    .options = kOptions,
    .at_slope = change_with<kOptions, at_slope>};

}  // namespace lmq
