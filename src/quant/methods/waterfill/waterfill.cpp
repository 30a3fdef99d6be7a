#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <memory>

#include "layer_sides.hpp"
#include "lmq/base/error.hpp"
#include "lmq/kernels/rate_cells.hpp"
#include "lmq/kernels/trellis.hpp"
#include "lmq/kernels/widen.hpp"
#include "lmq/quant/curvature_factor.hpp"
#include "lmq/quant/trellis_rate.hpp"

namespace lmq {
namespace {

// Measured on one core of 2.5 GHz: a fused multiply-add of the sums, a weight of the search and what goes with it.
constexpr double kProductNs = 0.03, kWeightNs = 40, kPasses = 2;
constexpr double kFinest = 0x1p-100, kCoarsest = 0x1p100;
struct WaterfillOptions {
  std::optional<double> step = {}, rate = {};
  unsigned states = 8;
  double damping_inputs = 0.003, damping_outputs = 0.2;
  std::optional<double> samples = {};
  double token_prior = 0.75;
};
constexpr auto kOptions = option_table(
    number_option<&WaterfillOptions::step>("step", "step of a weight whose curvature is 1, the same for all layers",
                                           kFinest, kCoarsest)
        .spending(),
    number_option<&WaterfillOptions::rate>("rate", "bits per weight that each unit is to take, met as forecast", 0.001,
                                           16)
        .spending(),
    whole_option<&WaterfillOptions::states>("states", "states of the trellis: 1, 4, 8, 16, 32; 1 is a scalar quantizer",
                                            1, 32),
    number_option<&WaterfillOptions::damping_inputs>("damping-inputs",
                                                     "part of its mean added to the curvature of the inputs", 0, 100),
    number_option<&WaterfillOptions::damping_outputs>("damping-outputs",
                                                      "part of its mean added to the curvature of the outputs", 0, 100),
    number_option<&WaterfillOptions::samples>(
        "samples", "tokens behind the importance, as its file says; few ask for more damping", 1, 1e15),
    number_option<&WaterfillOptions::token_prior>(
        "token-prior", "how much frequent tokens count where no importance says it: (1 + row / 1000)^-X", 0, 1));

void complete(WaterfillOptions& options, std::size_t levels, bool) {
  if (!is_trellis_states(options.states)) fail(Errc::usage, "\"states\" is 1, 4, 8, 16 or 32");
  if (options.step && options.rate) fail(Errc::usage, "\"step\" and \"rate\" say the same thing: give one of them");
  if (!options.step && !options.rate) options.rate = plain_log2(static_cast<double>(levels));
}

void at_slope(WaterfillOptions& options, std::size_t, double slope) {
  options.step = std::clamp(step_at_slope(options.states, slope), kFinest, kCoarsest);
  options.rate.reset();
}

/// log2 of a mean square as eighths of its root.
int eighths_of(double square) noexcept {
  return square > 0x1p-1000 ? static_cast<int>(std::floor(4 * plain_log2(square) + 0.5)) : -2048;
}

/// Weights of a window by their spread: rms of a row and a column together, times the pivots.
class SpreadCount {
 public:
  SpreadCount(std::span<const float> weights, std::size_t cols, const LayerSides& sides)
      : rows_(weights.size() / cols), cols_(cols) {
    SquareSums sums = square_sums(weights, cols);
    const double all = sums.all;
    row_ = std::move(sums.row), col_ = std::move(sums.col);
    for (double& r : row_) r /= static_cast<double>(cols_);
    for (double& c : col_) c = all > 0 ? c * static_cast<double>(cols_) / all : 0;
    std::size_t at = 0;
    for (const CurvatureFactor& lane : sides.outputs)
      for (const double pivot : lane.pivot) row_[at++] *= pivot * pivot;
    for (std::size_t i = 0; i < sides.row_curvature.size(); ++i) row_[i] *= sides.row_curvature[i];
    for (std::size_t j = 0; j < cols_; ++j)
      col_[j] *= sides.inputs != nullptr        ? sides.inputs->pivot[j] * sides.inputs->pivot[j]
                 : !sides.col_curvature.empty() ? sides.col_curvature[j]
                                                : 1.0;
  }

  [[nodiscard]] SpreadHistogram histogram(const std::vector<double>& row_gain,
                                          const std::vector<double>& col_gain) const {
    SpreadHistogram made;
    if (row_gain.empty() && col_gain.empty()) {  // pairs of classes instead of weights
      const std::map<int, std::uint64_t> cols = counted(col_);
      for (const auto& [row, rows] : counted(row_))
        for (const auto& [col, count] : cols) made.add(row + col, rows * count);
      return made;
    }
    std::vector<int> col(cols_);
    for (std::size_t j = 0; j < cols_; ++j) col[j] = eighths_of(col_[j]);
    for (std::size_t i = 0; i < rows_; ++i) {
      const int row = eighths_of(row_[i]);
      for (std::size_t j = 0; j < cols_; ++j)
        made.add(row + col[j], 1, (row_gain.empty() ? 1 : row_gain[i]) * (col_gain.empty() ? 1 : col_gain[j]) - 1);
    }
    return made;
  }

 private:
  static std::map<int, std::uint64_t> counted(const std::vector<double>& squares) {
    std::map<int, std::uint64_t> made;
    for (const double square : squares) ++made[eighths_of(square)];
    return made;
  }

  std::size_t rows_, cols_;
  std::vector<double> row_, col_;  ///< mean squares; their product is that of a weight
};

/// A window in hand.
struct Layer {
  Layer(const RowWindow& window, const SideDamping& damping, double token_prior)
      : cols(static_cast<std::size_t>(window.cols)), rows(window.view.count / cols), weights(window.view.count) {
    widen(window.view.dtype, window.view.bytes, weights);
    if (window.workspace != nullptr) inputs = &window.workspace->get<InputFactor>();
    sides = sides_of(window, weights, damping, token_prior, *inputs);
  }
  Layer(const Layer&) = delete;
  Layer& operator=(const Layer&) = delete;
  [[nodiscard]] SpreadHistogram count() {
    std::vector<double> row_gain;
    for (const CurvatureFactor& lane : sides.outputs) {
      const std::vector<double> gain = noise_gain(lane);
      row_gain.insert(row_gain.end(), gain.begin(), gain.end());
    }
    if (sides.inputs != nullptr && inputs->gain.empty()) inputs->gain = noise_gain(*sides.inputs);
    return SpreadCount(weights, cols, sides)
        .histogram(row_gain, sides.inputs != nullptr ? inputs->gain : std::vector<double>());
  }

  std::size_t cols, rows;
  std::vector<float> weights;
  InputFactor own;
  InputFactor* inputs = &own;
  LayerSides sides;
};

class Waterfill final : public Quantizer {
 public:
  Waterfill(std::size_t levels, const WaterfillOptions& options)
      : Quantizer({.sees = Sees::layer, .lane_rows = kLaneRows}),
        states_(options.states),
        step_(options.step),
        rate_(options.rate.value_or(plain_log2(static_cast<double>(levels)))),
        damping_{options.damping_inputs, options.damping_outputs, options.samples.value_or(0)},
        token_prior_(options.token_prior) {}

  [[nodiscard]] UnitStats quantize_layer(const RowWindow& window, TrellisUnit& unit) const override {
    Layer layer(window, damping_, token_prior_);
    const double step = step_ ? *step_ : step_for_bits(layer.count(), states_, rate_);
    const auto lane_rows = static_cast<std::size_t>(std::max<std::uint64_t>(window.lane_rows, 1));
    LayerCoding coding{.states = states_,
                       .step = static_cast<float>(step),
                       .lane_rows = lane_rows,
                       .keep_scale = window.importance.kind != Importance::Kind::none &&
                                     window.importance.kind != Importance::Kind::columns,
                       .coarsen = true};
    if (too_short(layer, lane_rows)) coding = as_scalar(coding);
    CodedLayer coded = code_layer({layer.weights, layer.rows, layer.cols}, layer.sides, coding);
    const std::uint16_t method = unit.method;
    const DType source = unit.source;
    unit = std::move(coded.unit);
    unit.method = method, unit.source = source;
    return measure_error(window.view, coded.values, window.importance);
  }

  [[nodiscard]] SpreadHistogram spreads(const RowWindow& window) const override {
    return Layer(window, damping_, token_prior_).count();
  }

  [[nodiscard]] std::vector<RatePoint> spread_curve(const SpreadHistogram& histogram,
                                                    std::span<const double> lambdas) const override {
    return trellis_curve(histogram, states_, lambdas);
  }

  [[nodiscard]] LayerNeeds layer_needs(const LayerShape& shape) const override;

 private:
  static constexpr std::uint64_t kLaneRows = 256;
  static constexpr std::size_t kShortRun = 8;

  /// A decision that is forced at the end of a run costs 1.2 bits with 8 states; a trellis gains .18 bit a weight.
  static bool too_short(const Layer& layer, std::size_t lane_rows) {
    const bool forced = layer.sides.inputs != nullptr || !layer.sides.outputs.empty();
    return forced && std::min({layer.rows, layer.cols, lane_rows}) < kShortRun;
  }
  /// The same slope without a trellis.
  static LayerCoding as_scalar(LayerCoding coding) {
    coding.step = static_cast<float>(step_at_slope(1, slope_of_step(coding.states, double{coding.step})));
    coding.states = 1;
    return coding;
  }

  unsigned states_;
  std::optional<double> step_;
  double rate_;
  SideDamping damping_;
  double token_prior_;
};

LayerNeeds Waterfill::layer_needs(const LayerShape& shape) const {
  const auto rows = static_cast<double>(shape.rows), cols = static_cast<double>(shape.cols);
  const auto lane = static_cast<double>(std::min(shape.rows, shape.lane_rows));
  const double weights = rows * cols, factor = shape.gram ? cols * cols : 0;
  const bool outer = shape.outer_rows > 0;
  LayerNeeds needs;
  // weights, values, codes and targets of all lanes; where errors are passed on codes, values, errors, targets and sums
  // of those in work; pivots, steps, classes and sums of rows, columns and diagonals
  const double each = shape.gram || outer ? 16 + 40 : 16 + 6;
  needs.scratch_bytes =
      static_cast<std::uint64_t>(weights * each + (rows + cols) * 100 + factor * 24 + (outer ? rows * lane * 4 : 0));
  needs.factor_seconds = factor * cols / 3 * kProductNs * 2e-9;
  const double products = (shape.gram ? cols / 2 : 0) + (outer ? lane / 2 : 0);
  needs.seconds = kPasses * weights * (kWeightNs + products * kProductNs) * 1e-9;
  return needs;
}

std::unique_ptr<Quantizer> make(std::size_t levels, const WaterfillOptions& options) {
  return std::make_unique<Waterfill>(levels, options);
}

}  // namespace

extern const QuantizerEntry kWaterfill;
const QuantizerEntry kWaterfill{
    .id = 18,  // written to files: never reused, never renumbered
    .name = "waterfill",
    .summary = "steps by the curvature of the loss on both sides, errors passed on, an entropy-coded trellis",
    .source = "Marcellin & Fischer 1990 (trellis); Frantar et al. 2022 (errors passed on); docs/methods/waterfill.md",
    .make = make_with<kOptions, make>,
    .options = kOptions,
    .complete = change_with<kOptions, complete>,
    .at_slope = change_with<kOptions, at_slope>};

}  // namespace lmq
