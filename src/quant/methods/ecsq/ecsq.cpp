#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "ecsq_options.hpp"
#include "entropy_fit.hpp"
#include "lmq/base/error.hpp"

namespace lmq {
namespace {

constexpr double kUnset = std::numeric_limits<double>::quiet_NaN();
constexpr std::array<std::string_view, 3> kZeroWords{"auto", "off", "on"};
constexpr std::array<std::string_view, 2> kFormWords{"entropy", "huffman"};
constexpr std::array<std::string_view, 3> kStartWords{"best", "optimum", "uniform"};
constexpr std::array<std::string_view, 4> kCutWords{"auto", "grid", "rate", "plain"};
constexpr std::array<std::string_view, 2> kLabelWords{"joint", "interval"};

constexpr MethodOption kRate{
    "rate", "entropy of the codes in bits per weight, met from below", 0.001, 8, kUnset, false, {}, true};
constexpr MethodOption kLambda{"lambda", "squared error that one bit is worth", 0, 1e300, kUnset, false, {}, true};
constexpr MethodOption kSlope{"slope", "the same as a part of the variance of the weights", 0, 1e6, kUnset, false, {},
                              true};
constexpr MethodOption kZero{
    .name = "zero", .help = "a level of exactly 0 for zeros (auto: where they stand out)", .words = kZeroWords};
constexpr MethodOption kLabels{
    .name = "labels",
    .help = "what a code depends on: value and importance (by tensor and model), or the value alone",
    .words = kLabelWords};
constexpr std::array kExactOptions{kRate, kLambda, kSlope, kZero, kLabels};
constexpr std::array kIterOptions{
    kRate,
    kLambda,
    kSlope,
    kZero,
    MethodOption{.name = "lengths", .help = "what a code costs: its entropy or a Huffman word", .words = kFormWords},
    MethodOption{.name = "start", .help = "where the iteration starts", .words = kStartWords},
    kLabels};
constexpr std::array kUniformOptions{
    kRate, kLambda, kSlope, kZero,
    MethodOption{.name = "cuts",
                 .help = "thresholds of the grid, or moved by the price of a bit; plain: levels on the grid, too",
                 .words = kCutWords}};
enum At : std::size_t { kAtRate, kAtLambda, kAtSlope, kAtZero, kAtFifth, kAtStart, kAtLastLabels };

// Without a word about the rate, the levels say it; the number of levels is then free.
void settle(QuantizerOptions& options, bool levels_given) {
  const std::size_t given = static_cast<std::size_t>(
      std::count_if(options.values.begin(), options.values.begin() + kAtZero, [](double v) { return !std::isnan(v); }));
  if (given > 1) fail(Errc::usage, "\"rate\", \"lambda\" and \"slope\" say the same thing: give one of them");
  if (given == 0) options.values[kAtRate] = plain_log2(static_cast<double>(options.levels));
  if (given == 0 || !levels_given) options.levels = kMaxCells;
}

}  // namespace

EcsqOptions ecsq_options(EcsqAlgorithm way, const QuantizerOptions& options) {
  const std::span<const MethodOption> known = way == EcsqAlgorithm::exact ? std::span<const MethodOption>(kExactOptions)
                                              : way == EcsqAlgorithm::iterative
                                                  ? std::span<const MethodOption>(kIterOptions)
                                                  : kUniformOptions;
  const auto word = [&](std::size_t at) { return static_cast<std::uint8_t>(option(options, known, at)); };
  EcsqOptions wish{.way = way, .most_levels = std::clamp<std::size_t>(options.levels, 1, kMaxCells)};
  wish.rate = option(options, known, kAtRate);
  wish.lambda = option(options, known, kAtLambda);
  wish.slope = option(options, known, kAtSlope);
  wish.zero = ZeroRule{word(kAtZero)};
  if (way == EcsqAlgorithm::iterative) wish.form = LengthForm{word(kAtFifth)}, wish.start = StartRule{word(kAtStart)};
  if (way == EcsqAlgorithm::uniform) wish.cuts = CutRule{word(kAtFifth)};
  if (std::isnan(wish.rate) && std::isnan(wish.lambda) && std::isnan(wish.slope))
    wish.rate = plain_log2(static_cast<double>(options.levels));
  return wish;
}

QuantizerOptions options_at(QuantizerOptions options, double lambda) {
  options.levels = kMaxCells;
  options.values.resize(std::max<std::size_t>(options.values.size(), kAtZero), kUnset);
  options.values[kAtRate] = options.values[kAtSlope] = kUnset;
  options.values[kAtLambda] = lambda;
  return options;
}

/// The levels of a uniform code on its grid; a table of them where float cannot say low + k * step for all.
Codebook grid_of(const UniformCode& found) {
  const auto low = static_cast<float>(found.low), step = static_cast<float>(found.step);
  const auto rise = static_cast<float>(found.grid_levels - 1) * step;
  if (std::isfinite(low) && std::isfinite(rise)) return Codebook::grid(low, step, found.grid_levels);
  constexpr double kLargest = std::numeric_limits<float>::max();
  std::vector<float> levels;
  for (std::size_t k = 0; k < found.grid_levels; ++k)
    levels.push_back(
        static_cast<float>(std::clamp(found.low + static_cast<double>(k) * found.step, -kLargest, kLargest)));
  return Codebook::table(std::move(levels));
}

Codebook entropy_codebook(const RateLine& line, const EntropyCode& code) {
  if (code.joint) {
    std::vector<double> prices = code.joint->lengths;
    for (double& price : prices) price *= code.lambda;
    return Codebook::table({code.joint->levels.begin(), code.joint->levels.end()}).with_prices(std::move(prices));
  }
  const UniformCode& found = code.found;
  if (found.on_grid) return grid_of(found);
  if (!found.levels.empty()) return Codebook::table({found.levels.begin(), found.levels.end()});
  std::vector<float> levels, cuts;
  const auto& ends = found.code.ends;
  for (std::size_t t = 1; t < ends.size(); ++t) {
    levels.push_back(static_cast<float>(line.level(ends[t - 1], ends[t])));
    if (t + 1 < ends.size()) cuts.push_back(line.low[ends[t]]);
  }
  return Codebook::table(std::move(levels)).with_cuts(std::move(cuts));
}

namespace {

constexpr double kBinsInCell = 32;  // bins of wide types become at least so narrow

// Bins that are wider than a part of the cell they lie in, cut to that. Empty once there are none.
std::vector<KeyRange> wide_bins(const Group& group, const RateLine& line, std::span<const std::uint32_t> ends) {
  std::vector<KeyRange> ranges;
  for (std::size_t t = 1; t < ends.size(); ++t) {
    const double least = (line.value[ends[t] - 1] - line.value[ends[t - 1]]) / kBinsInCell;
    for (std::size_t bin = ends[t - 1]; bin < ends[t]; ++bin) {
      const unsigned bits = span_bits(group, bin);
      const double width = double{group.high[bin]} - double{group.low[bin]};
      if (bits == 0 || !(width > least) || !(group.scatter[bin] > 0)) continue;
      const double parts = least > 0 ? std::min(width / least, 64.0) : 64.0;
      unsigned finer = 1;
      while (static_cast<double>(1u << finer) < parts) ++finer;
      const unsigned left = bits - std::min(bits, finer);
      const std::uint32_t begin = ordered_key(group.low[bin]), end = last_key(group, bin);
      if (!ranges.empty() && ranges.back().end + 1 == begin && ranges.back().span_bits == left)
        ranges.back().end = end;
      else
        ranges.push_back({begin, end, left});
    }
  }
  return ranges;
}

// Of the options of `way`.
bool wants_joint_labels(EcsqAlgorithm way, const QuantizerOptions& options) {
  if (way == EcsqAlgorithm::uniform) return false;
  return way == EcsqAlgorithm::exact ? option(options, kExactOptions, kAtFifth) == 0
                                     : option(options, kIterOptions, kAtLastLabels) == 0;
}

class EntropyQuantizer final : public Quantizer {
 public:
  EntropyQuantizer(EcsqAlgorithm way, const QuantizerOptions& options)
      : Quantizer({.rounding = Rounding::cuts,
                   .detail = Detail::cells,
                   .by_importance = wants_joint_labels(way, options),
                   .few_weights = kMaxExactPoints,
                   .cost = {.row_weight = 3500, .value_bytes = 190}}),
        wish_(ecsq_options(way, options)) {}
  [[nodiscard]] Fit fit(const Group& group) const override {
    const RateLine line(group, wish_.zero);
    const JointLine joint(group, line);
    EntropyFitter fitter(&joint);
    const EntropyCode code = fitter.fit(line, wish_);
    return {entropy_codebook(line, code), wide_bins(group, line, code.found.code.ends)};
  }
  [[nodiscard]] std::vector<RatePoint> curve(const Group& group, std::span<const double> lambdas) const override {
    EcsqOptions wish = wish_;
    wish.rate = wish.lambda = wish.slope = kUnset;
    wish.most_levels = kMaxCells;
    const RateLine line(group, wish.zero);
    const JointLine joint(group, line);
    EntropyFitter fitter(&joint);
    std::vector<RatePoint> points;
    for (const double lambda : lambdas) points.push_back(point_of(fitter.at(line, wish, lambda, true)));
    return points;
  }

 private:
  static RatePoint point_of(const EntropyCode& code) {
    const UniformCode& found = code.found;
    const std::size_t levels = code.joint      ? code.joint->levels.size()
                               : found.on_grid ? found.grid_levels
                                               : found.code.cells();
    return {code.lambda, code.bits(), code.distortion(), levels};
  }
  EcsqOptions wish_;
};

void at_slope(QuantizerOptions& options, double slope) { options = options_at(std::move(options), slope); }

template <EcsqAlgorithm kWay>
std::unique_ptr<Quantizer> make(const QuantizerOptions& options) {
  return std::make_unique<EntropyQuantizer>(kWay, options);
}

}  // namespace

extern const QuantizerEntry kEcsq;
const QuantizerEntry kEcsq{
    .id = 12,  // written to files: never reused, never renumbered
    .name = "ecsq",
    .summary = "least squared error for the bits after entropy coding: the exact optimum over interval codes",
    .source =
        "Choi, El-Khamy & Lee 2017, Towards the Limit of Network Quantization, section 4; Muresan & Effros 2008 "
        "(exact, as a shortest path)",
    .make = make<EcsqAlgorithm::exact>,
    .options = kExactOptions,
    .settle = settle,
    .at_slope = at_slope};

extern const QuantizerEntry kEcsqIter;
const QuantizerEntry kEcsqIter{
    .id = 13,
    .name = "ecsq-iter",
    .summary = "the same by the paper's iteration, for entropy or Huffman coding",
    .source = "Choi, El-Khamy & Lee 2017, Towards the Limit of Network Quantization, section 4.3 (iterative algorithm)",
    .make = make<EcsqAlgorithm::iterative>,
    .options = kIterOptions,
    .settle = settle,
    .at_slope = at_slope};

extern const QuantizerEntry kEcsqUniform;
const QuantizerEntry kEcsqUniform{
    .id = 14,
    .name = "ecsq-uniform",
    .summary = "uniform steps for entropy coding: the best step, offset and thresholds",
    .source = "Choi, El-Khamy & Lee 2017, Towards the Limit of Network Quantization, section 4.2; Gish & Pierce 1968",
    .make = make<EcsqAlgorithm::uniform>,
    .options = kUniformOptions,
    .settle = settle,
    .at_slope = at_slope};

}  // namespace lmq
