#include "lmq/quant/trellis_layer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "free_codes.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/kernels/rate_cells.hpp"
#include "lmq/quant/cancellation.hpp"

namespace lmq {
namespace {
constexpr std::size_t kFewServed = 1024;
constexpr double kMinEnergy = 1e-9;  // squared steps of a row or column of zeros

void check(const LayerWeights& weights, const LayerSides& sides, const LayerCoding& coding) {
  const auto wrong = [](const char* what) { fail(Errc::internal, fmt::format("layer to code: {}", what)); };
  if (weights.values.size() != weights.rows * weights.cols) wrong("weights of another shape");
  if (!is_trellis_states(coding.states) || !(coding.step > 0) || coding.lane_rows < 1) wrong("states, step or lanes");
  std::size_t rows = 0;
  for (const CurvatureFactor& block : sides.outputs) rows += block.size;
  if (!sides.outputs.empty() && rows != weights.rows) wrong("output factors of other rows");
  if (sides.outputs.size() > kMaxTrellisLanes) wrong("more output factors than lanes");
  for (std::size_t k = 1; k < sides.outputs.size(); ++k)
    if (sides.outputs[k].size > sides.outputs[0].size ||
        (k + 1 < sides.outputs.size() && sides.outputs[k].size != sides.outputs[0].size))
      wrong("output factors of different sizes");
  if (!sides.row_curvature.empty() && sides.row_curvature.size() != weights.rows) wrong("curvature of other rows");
  if (sides.inputs != nullptr && sides.inputs->size != weights.cols) wrong("an input factor of other columns");
  if (!sides.col_curvature.empty() && sides.col_curvature.size() != weights.cols) wrong("curvature of other columns");
}

/// Pivots of one side: of factors, roots of curvatures, or ones.
std::vector<double> pivots(std::span<const CurvatureFactor> factors, const std::vector<double>& curvature,
                           std::size_t count) {
  std::vector<double> made;
  for (const CurvatureFactor& factor : factors) made.insert(made.end(), factor.pivot.begin(), factor.pivot.end());
  if (factors.empty())
    for (const double h : curvature) made.push_back(std::sqrt(h));
  if (made.empty()) made.assign(count, 1.0);
  return made;
}

/// Steps of one side in eighths of an octave, and what rounding them leaves as a weight of squared steps. Where a step
/// serves few weights they are rounded to quarters: storing a bit more costs them more than .002 bit.
void choose_steps(const std::vector<double>& pivot, std::size_t served, std::vector<std::int16_t>& step,
                  std::vector<float>& weight) {
  const int grain = served < kFewServed ? 2 : 1;
  for (const double p : pivot) {
    const double eighths = grain * std::floor(0.5 - 8 / grain * plain_log2(p));
    step.push_back(static_cast<std::int16_t>(std::clamp(eighths, -1.0 * kMaxEighths, 1.0 * kMaxEighths)));
    const double left = p * octave_eighths(step.back());
    weight.push_back(static_cast<float>(left * left));
  }
}

int thirds_of(double mean_square) noexcept {
  return static_cast<int>(std::floor(1.5 * plain_log2(std::max(mean_square, kMinEnergy)) + 0.5));
}
std::int8_t kept(int spread) noexcept { return static_cast<std::int8_t>(std::clamp(spread, -60, 90)); }

/// Classes of columns by their mean square, then of rows by what is left.
template <class SquareOf>
void choose_spreads(TrellisUnit& unit, const SquareOf& square_of) {
  const auto rows = static_cast<std::size_t>(unit.rows), cols = static_cast<std::size_t>(unit.cols);
  constexpr std::size_t kLanes = 16;
  std::vector<double> column(cols, 0.0), scale(cols);
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t j = 0; j < cols; ++j) column[j] += square_of(i, j);
  unit.col_spread.resize(cols), unit.row_spread.resize(rows);
  for (std::size_t j = 0; j < cols; ++j) {
    const double mean = std::max(column[j] / static_cast<double>(rows), kMinEnergy);
    unit.col_spread[j] = kept(kSpreadOfOne + thirds_of(mean));
    scale[j] = 1 / mean;
  }
  for (std::size_t i = 0; i < rows; ++i) {
    std::array<double, kLanes> lane{};
    std::size_t j = 0;
    for (; j + kLanes <= cols; j += kLanes)
      for (std::size_t k = 0; k < kLanes; ++k) lane[k] += square_of(i, j + k) * scale[j + k];
    for (; j < cols; ++j) lane[j % kLanes] += square_of(i, j) * scale[j];
    double sum = 0;
    for (const double part : lane) sum += part;
    unit.row_spread[i] = kept(thirds_of(sum / static_cast<double>(cols)));
  }
}

struct Steps {
  std::vector<float> row, col, row_weight, col_weight;
  std::vector<float> panels;  ///< in_panels of the inputs
};

/// Steps that lie further from 0 than this are left to the errors passed on: codes reach 2^20.
constexpr double kMaxStepsAway = 0x1p18;

/// The step for all of which no weight is more than that away; finer ones would store bits below a float's precision.
float finest_step(std::span<const float> weights, const TrellisUnit& unit) {
  const auto rows = static_cast<std::size_t>(unit.rows), cols = static_cast<std::size_t>(unit.cols);
  double largest = 0;
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t j = 0; j < cols; ++j)
      largest = std::max(largest, std::abs(double{weights[i * cols + j]}) /
                                      (double{octave_eighths(unit.row_step[i])} * octave_eighths(unit.col_step[j])));
  return static_cast<float>(largest / kMaxStepsAway);
}

bool passes_errors_on(const LayerSides& sides) noexcept { return sides.inputs != nullptr || !sides.outputs.empty(); }

/// Rows [first, first + rows) with the steps and classes of the layer.
CancellationUnit part_of(const LayerWeights& weights, const Steps& steps, const TrellisUnit& unit, std::size_t first,
                         std::size_t rows) {
  CancellationUnit part;
  part.rows = rows, part.cols = weights.cols;
  part.weights = weights.values.subspan(first * weights.cols, rows * weights.cols);
  part.row_step = std::span(steps.row).subspan(first, rows), part.col_step = steps.col;
  if (!unit.row_spread.empty())  // classes are chosen by targets
    part.row_spread = std::span(unit.row_spread).subspan(first, rows), part.col_spread = unit.col_spread;
  part.row_weight = std::span(steps.row_weight).subspan(first, rows), part.col_weight = steps.col_weight;
  return part;
}

/// All lanes of the layer; targets replace those of the pass before. Where no errors are passed on they are there, and
/// what the values are multiples of their steps by replaces them.
double code_lanes(const LayerWeights& weights, const LayerSides& sides, const Steps& steps, CodedLayer& layer,
                  std::span<std::int32_t> targets) {
  TrellisUnit& unit = layer.unit;
  const double rho = unit.states == 1 ? kScalarRho : kTrellisRho;
  const TrellisRates rates = make_trellis_rates(spread_family(), unit.states, rho);
  const auto lanes = static_cast<std::size_t>(unit.lanes());
  std::vector<double> squared(lanes);
  parallel_for(lanes, [&](std::size_t lane) {
    const std::size_t first = lane * static_cast<std::size_t>(unit.lane_rows);
    const std::size_t rows = std::min(static_cast<std::size_t>(unit.lane_rows), weights.rows - first);
    CancellationUnit part = part_of(weights, steps, unit, first, rows);
    const std::size_t from = first * weights.cols, count = rows * weights.cols;
    std::size_t clamped = 0;
    if (passes_errors_on(sides)) {
      if (!sides.outputs.empty()) part.outputs = sides.outputs[lane].unit;
      if (sides.inputs != nullptr) part.inputs = sides.inputs->unit, part.panels = steps.panels;
      const CancelledCodes coded = cancel(part, rates);
      const auto to = static_cast<std::ptrdiff_t>(from);
      std::ranges::copy(coded.codes, unit.codes.begin() + to);
      std::ranges::copy(coded.values, layer.values.begin() + to);
      std::ranges::copy(coded.targets, targets.begin() + to);
      squared[lane] = coded.squared_steps, clamped = coded.clamped;
    } else {
      FreeCodes made{targets.subspan(from, count), std::span(unit.codes).subspan(from, count),
                     std::span(layer.values).subspan(from, count), targets.subspan(from, count)};
      free_codes(part, rates, made);
      squared[lane] = made.squared_steps, clamped = made.clamped;
    }
    if (clamped > 0)
      fail(Errc::usage,
           fmt::format("a step of {} is too fine: {} weights of rows {} to {} lie more than 2^20 steps from 0",
                       unit.step, clamped, first, first + rows - 1));
  });
  double sum = 0;
  for (const double lane : squared) sum += lane;
  return sum;
}

constexpr double kLeastScale = 0.5;  // at most the step is doubled

/// The sum over all weights of h w v over that of h w^2, at least kLeastScale: a row at a time in 16 lanes.
double scale_kept(const LayerWeights& weights, const LayerSides& sides, std::span<const float> values) {
  constexpr std::size_t kLanes = 16;
  double both = 0, own = 0;
  for (std::size_t i = 0; i < weights.rows; ++i) {
    std::array<double, kLanes> with{}, alone{};
    const std::size_t from = i * weights.cols;
    for (std::size_t j = 0; j < weights.cols; ++j) {
      const double w = weights.values[from + j], h = sides.col_curvature.empty() ? w : w * sides.col_curvature[j];
      with[j % kLanes] += h * values[from + j], alone[j % kLanes] += h * w;
    }
    const double row = sides.row_curvature.empty() ? 1 : sides.row_curvature[i];
    for (std::size_t k = 0; k < kLanes; ++k) both += row * with[k], own += row * alone[k];
  }
  return both > 0 && own > 0 ? std::max(both / own, kLeastScale) : 1;
}

/// Values are these multiples of their steps, and of the new ones.
void restore_scale(const LayerWeights& weights, const LayerSides& sides, std::span<const float> col_step,
                   std::span<const std::int32_t> multiples, CodedLayer& layer) {
  TrellisUnit& unit = layer.unit;
  unit.step = static_cast<float>(unit.step / scale_kept(weights, sides, layer.values));
  for (std::size_t i = 0; i < weights.rows; ++i) {
    const float row = unit.step * octave_eighths(unit.row_step[i]);
    const std::size_t from = i * weights.cols;
    for (std::size_t j = 0; j < weights.cols; ++j)
      layer.values[from + j] = static_cast<float>(multiples[from + j]) * row * col_step[j];
  }
}

/// A layer of zeros needs neither steps nor classes: of class 0, all of them are as cheap as can be.
void forget_sides(TrellisUnit& unit) {
  std::ranges::fill(unit.row_step, std::int16_t{0}), std::ranges::fill(unit.col_step, std::int16_t{0});
  std::ranges::fill(unit.row_spread, std::int8_t{0}), std::ranges::fill(unit.col_spread, std::int8_t{0});
}
}  // namespace

CodedLayer code_layer(const LayerWeights& weights, const LayerSides& sides, const LayerCoding& coding) {
  check(weights, sides, coding);
  CodedLayer layer;
  TrellisUnit& unit = layer.unit;
  unit.states = coding.states, unit.rows = weights.rows, unit.cols = weights.cols, unit.step = coding.step;
  const std::size_t wanted = sides.outputs.empty() ? coding.lane_rows : sides.outputs[0].size;
  const std::uint64_t fewest = ceil_div(std::max<std::uint64_t>(weights.rows, 1), kMaxTrellisLanes);
  unit.lane_rows = std::clamp<std::uint64_t>(wanted, fewest, std::max<std::uint64_t>(weights.rows, 1));
  Steps steps;
  choose_steps(pivots(sides.outputs, sides.row_curvature, weights.rows), weights.cols, unit.row_step, steps.row_weight);
  const std::span<const CurvatureFactor> inputs(sides.inputs, sides.inputs != nullptr ? 1 : 0);
  choose_steps(pivots(inputs, sides.col_curvature, weights.cols), weights.rows, unit.col_step, steps.col_weight);
  if (coding.coarsen) unit.step = std::max(unit.step, finest_step(weights.values, unit));
  for (const int eighths : unit.row_step) steps.row.push_back(unit.step * octave_eighths(eighths));
  for (const int eighths : unit.col_step) steps.col.push_back(octave_eighths(eighths));
  if (weights.values.empty()) {
    unit.row_spread.assign(weights.rows, 0), unit.col_spread.assign(weights.cols, 0);
    return layer;
  }
  if (sides.inputs != nullptr) steps.panels = in_panels(sides.inputs->unit, weights.cols);
  unit.codes.resize(weights.values.size()), layer.values.resize(weights.values.size());
  std::vector<std::int32_t> targets(weights.values.size());
  const auto by_targets = [&](std::size_t i, std::size_t j) {
    const double u = targets[i * weights.cols + j] / double{kTrellisOne};
    return u * u;
  };
  const bool free = !passes_errors_on(sides);
  if (free)
    free_targets(part_of(weights, steps, unit, 0, weights.rows), targets);
  else
    choose_spreads(unit, [&](std::size_t i, std::size_t j) {
      const double u = weights.values[i * weights.cols + j] / (double{steps.row[i]} * steps.col[j]);
      return u * u;
    });
  for (unsigned pass = 0; pass < (free ? 1 : std::max(coding.passes, 1U)); ++pass) {
    if (free || pass > 0) choose_spreads(unit, by_targets);
    layer.squared_steps = code_lanes(weights, sides, steps, layer, targets);
  }
  if (free && coding.keep_scale) restore_scale(weights, sides, steps.col, targets, layer);
  if (std::ranges::all_of(layer.values, [](float value) { return value == 0; })) forget_sides(unit);
  return layer;
}

}  // namespace lmq
