#include "scope_curve.hpp"

#include <algorithm>
#include <functional>
#include <limits>

#include "lmq/container/size.hpp"
#include "lmq/plan/costs.hpp"
#include "lmq/quant/level_curve.hpp"
#include "trial.hpp"

namespace lmq {
namespace {

constexpr double kStep = 0.70710678118654752;  // from slope to slope
// Of scopes of rows and groups slopes a bit apart are tried, of other small ones half a bit.
constexpr std::size_t kTriedSlopes = 4, kFewSlopes = 2;

std::vector<double> slopes_below(double first, int count) {
  std::vector<double> slopes;
  for (int i = 0; i < count; ++i, first *= kStep) slopes.push_back(first);
  return slopes;
}

/// Points at all slopes from those at every `stride`-th.
std::vector<RatePoint> at_some_slopes(std::span<const double> slopes, std::size_t stride,
                                      const std::function<std::vector<RatePoint>(std::span<const double>)>& points_at) {
  std::vector<std::size_t> known;
  std::vector<double> some, places;
  for (std::size_t i = 0; i < slopes.size(); ++i) {
    places.push_back(static_cast<double>(i));
    if (i % stride == 0 || i + 1 == slopes.size()) known.push_back(i), some.push_back(slopes[i]);
  }
  const std::vector<RatePoint> found = points_at(some);
  std::vector<RatePoint> points(slopes.size());
  for (std::size_t k = 0; k < known.size(); ++k)
    std::fill(points.begin() + static_cast<std::ptrdiff_t>(known[k]), points.end(), found[k]);
  fill_between(known, places, points);
  for (std::size_t i = 0; i < slopes.size(); ++i) points[i].lambda = slopes[i];
  return points;
}

/// A scope's weights as codebooks of rows or groups would have them.
class RowCurve {
 public:
  RowCurve(const RunContext& context, const Scope& scope)
      : spec_(scope.spec),
        windows_(context, context.plan.tensors[scope.tensors.front()], tried_weights(scope.weights)),
        weights_(static_cast<double>(scope.weights)),
        records_(static_cast<double>(context.plan.tensors[scope.tensors.front()].units)) {}

  [[nodiscard]] std::vector<RatePoint> at_slopes(const QuantizerEntry& method, std::span<const double> slopes) const {
    return at_some_slopes(slopes, kTriedSlopes, [&](std::span<const double> some) {
      std::vector<RatePoint> points;
      for (const double slope : some) {
        QuantizerOptions options = spec_.options;
        method.at_slope(options, slope);
        points.push_back(point_of(options));
      }
      return points;
    });
  }

  [[nodiscard]] std::vector<RatePoint> by_levels() const {
    return level_points(level_options(spec_.method, spec_.options, rate_count(spec_)), false,
                        [&](const QuantizerOptions& options) { return point_of(options); });
  }

 private:
  [[nodiscard]] RatePoint point_of(const QuantizerOptions& options) const {
    QuantSpec spec = spec_;
    spec.options = options;
    const Trial trial = windows_.run(spec, nullptr);
    const double all = weights_ / trial.weights;
    return {std::numeric_limits<double>::quiet_NaN(), all * trial.bits + 8 * records_ * trial.overhead / trial.records,
            all * trial.loss, trial.levels};
  }

  const QuantSpec& spec_;
  TrialWindows windows_;
  double weights_, records_;
};

}  // namespace

RateCount rate_count(const QuantSpec& spec) noexcept {
  return takes_whole_bits(spec.coder) ? RateCount::fixed_width
         : spec.widths                ? RateCount::width_entropy
                                      : RateCount::entropy;
}

ScopeCurve curve_of(const Group& all, const RunContext& context, const Scope& scope) {
  constexpr int kSlopes = 38;
  const QuantSpec& spec = scope.spec;
  double weights = 0, mass = 0, first = 0;
  for (std::size_t j = 0; j < all.size(); ++j)
    weights += all.count[j], mass += all.mass[j], first += all.mass[j] * all.mean[j];
  const double second = group_energy(all);
  const auto slopes = slopes_below(4 * std::max(second - first * first / mass, 0.0) / weights, kSlopes);
  const QuantizerEntry& method = *find_quantizer(spec.method);
  if (!scope.shares_codebook()) {
    const RowCurve rows(context, scope);
    return {method.at_slope ? rows.at_slopes(method, slopes) : rows.by_levels(), second / mass};
  }
  const bool few = scope.weights < kFewWeights;
  const Group group = few ? bins_as_values(condensed(all, kFewBins)) : all;
  const auto points_at = [&](std::span<const double> some) {
    return rate_curve(group, spec.method, spec.options, some, rate_count(spec));
  };
  ScopeCurve curve{method.at_slope && few ? at_some_slopes(slopes, kFewSlopes, points_at) : points_at(slopes),
                   second / mass};
  for (RatePoint& point : curve.points)
    point.bits += 8 * static_cast<double>(scope_side_bytes(context.plan, scope, point.levels));
  return curve;
}

ScopeCurve curve_of(const SpreadHistogram& spreads, const Plan& plan, const Scope& scope) {
  constexpr int kSlopes = 120;
  const ImportanceInfo& importance = plan.tensors[scope.tensors.front()].importance;
  const double mean = importance.present() && importance.mean > 0 ? importance.mean : 1;  // 1: nothing is known
  const auto bins = spreads.bins();
  const auto slopes = slopes_below(bins.empty() ? 1 : 4 * bins.back().square, kSlopes);  // from where no bit pays
  return {find_quantizer(scope.spec.method)->make(scope.spec.options)->spread_curve(spreads, slopes),
          spreads.mean_square() / mean};
}

}  // namespace lmq
