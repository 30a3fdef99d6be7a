#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "ecsq_options.hpp"
#include "entropy_fit.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/parallel.hpp"

namespace lmq {
namespace {

constexpr std::array<std::string_view, 3> kZeroWords{"auto", "off", "on"};
constexpr std::array<std::string_view, 2> kFormWords{"entropy", "huffman"};
constexpr std::array<std::string_view, 3> kStartWords{"best", "optimum", "uniform"};
constexpr std::array<std::string_view, 4> kCutWords{"auto", "grid", "rate", "plain"};
constexpr std::array<std::string_view, 2> kLabelWords{"joint", "interval"};

constexpr auto kRate =
    number_option<&EcsqOptions::rate>("rate", "entropy of the codes in bits per weight, met from below", 0.001, 8)
        .spending();
constexpr auto kLambda =
    number_option<&EcsqOptions::lambda>("lambda", "squared error that one bit is worth", 0, 1e300).spending();
constexpr auto kSlope =
    number_option<&EcsqOptions::slope>("slope", "the same as a part of the variance of the weights", 0, 1e6).spending();
constexpr auto kZero =
    word_option<&EcsqOptions::zero>("zero", "a level of exactly 0 for zeros (auto: where they stand out)", kZeroWords);
constexpr auto kLabels = word_option<&EcsqOptions::labels>(
    "labels", "what a code depends on: value and importance (by tensor and model), or the value alone", kLabelWords);
constexpr auto kExactOptions = option_table(kRate, kLambda, kSlope, kZero, kLabels);
constexpr auto kIterOptions = option_table(
    kRate, kLambda, kSlope, kZero,
    word_option<&EcsqOptions::form>("lengths", "what a code costs: its entropy or a Huffman word", kFormWords),
    word_option<&EcsqOptions::start>("start", "where the iteration starts", kStartWords), kLabels);
constexpr auto kUniformOptions = option_table(
    kRate, kLambda, kSlope, kZero,
    word_option<&EcsqOptions::cuts>(
        "cuts", "thresholds of the grid, or moved by the price of a bit; plain: levels on the grid, too", kCutWords));

// Without a word about the rate, the levels say it; the number of levels is then free.
void complete(EcsqOptions& options, std::size_t& levels, bool levels_given) {
  const int given = int{options.rate.has_value()} + int{options.lambda.has_value()} + int{options.slope.has_value()};
  if (given > 1) fail(Errc::usage, "\"rate\", \"lambda\" and \"slope\" say the same thing: give one of them");
  if (given == 0) options.rate = plain_log2(static_cast<double>(levels));
  if (given == 0 || !levels_given) levels = kMaxCells;
}

void at_slope(EcsqOptions& options, std::size_t& levels, double lambda) {
  levels = kMaxCells;
  options.rate.reset(), options.slope.reset();
  options.lambda = lambda;
}

}  // namespace

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

Codebook entropy_codebook(const RateSums& line, const EntropyCode& code) {
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
std::vector<KeyRange> wide_bins(const Group& group, const RateSums& line, std::span<const std::uint32_t> ends) {
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

class EntropyQuantizer final : public Quantizer {
 public:
  explicit EntropyQuantizer(const EcsqOptions& wish)
      : Quantizer({.rounding = Rounding::cuts,
                   .detail = Detail::cells,
                   .by_importance = wish.way != EcsqAlgorithm::uniform && wish.labels == Labels::joint,
                   .few_weights = kMaxExactPoints,
                   .cost = {.row_weight = wish.way == EcsqAlgorithm::uniform ? 28000.0 : 3500.0,
                            .solve_level = 4e5,
                            .value_bytes = 120}}),
        wish_(wish) {}
  [[nodiscard]] Fit fit(const Group& group) const override {
    const RateSums line(group, wish_.zero);
    const JointSums joint(group, line);
    EntropyFitter fitter(&joint);
    const EntropyCode code = fitter.fit(line, wish_);
    return {entropy_codebook(line, code), wide_bins(group, line, code.found.code.ends)};
  }
  [[nodiscard]] std::vector<RatePoint> curve(const Group& group, std::span<const double> lambdas) const override {
    EcsqOptions wish = wish_;
    wish.most_levels = kMaxCells;
    const RateSums line(group, wish.zero);
    const JointSums joint(group, line);
    std::vector<EntropyFitter> fitters(thread_count(), EntropyFitter(&joint));
    std::vector<RatePoint> points(lambdas.size());
    parallel_for_worker(points.size(), [&](std::size_t k, std::size_t worker) {
      points[k] = point_of(fitters[worker].at(line, wish, lambdas[k], true));
    });
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

template <EcsqAlgorithm kWay>
std::unique_ptr<Quantizer> make(std::size_t levels, EcsqOptions options) {
  options.way = kWay;
  options.most_levels = std::clamp<std::size_t>(levels, 1, kMaxCells);
  if (!options.rate && !options.lambda && !options.slope) options.rate = plain_log2(static_cast<double>(levels));
  return std::make_unique<EntropyQuantizer>(options);
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
    .make = make_with<kExactOptions, make<EcsqAlgorithm::exact>>,
    .options = kExactOptions,
    .complete = change_with<kExactOptions, complete>,
    .at_slope = change_with<kExactOptions, at_slope>};

extern const QuantizerEntry kEcsqIter;
const QuantizerEntry kEcsqIter{
    .id = 13,
    .name = "ecsq-iter",
    .summary = "the same by the paper's iteration, for entropy or Huffman coding",
    .source = "Choi, El-Khamy & Lee 2017, Towards the Limit of Network Quantization, section 4.3 (iterative algorithm)",
    .make = make_with<kIterOptions, make<EcsqAlgorithm::iterative>>,
    .options = kIterOptions,
    .complete = change_with<kIterOptions, complete>,
    .at_slope = change_with<kIterOptions, at_slope>};

extern const QuantizerEntry kEcsqUniform;
const QuantizerEntry kEcsqUniform{
    .id = 14,
    .name = "ecsq-uniform",
    .summary = "uniform steps for entropy coding: the best step, offset and thresholds",
    .source = "Choi, El-Khamy & Lee 2017, Towards the Limit of Network Quantization, section 4.2; Gish & Pierce 1968",
    .make = make_with<kUniformOptions, make<EcsqAlgorithm::uniform>>,
    .options = kUniformOptions,
    .complete = change_with<kUniformOptions, complete>,
    .at_slope = change_with<kUniformOptions, at_slope>};

}  // namespace lmq
