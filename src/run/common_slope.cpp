#include "common_slope.hpp"

#include <algorithm>
#include <cmath>

#include "lmq/kernels/rate_cells.hpp"

namespace lmq {
namespace {
constexpr double kLeastScaleLeft = 0x1p-6;
}

const RatePoint& point_at(const ScopeCurve& curve, double slope) {
  return *std::ranges::min_element(curve.points, {},
                                   [&](const RatePoint& point) { return point.distortion + slope * point.bits; });
}

bool has_slopes(const ScopeCurve& curve) { return !std::isnan(curve.points.front().lambda); }

RatePoint at_slope(const ScopeCurve& curve, const std::vector<double>& kept, double slope) {
  if (!has_slopes(curve)) return point_at(curve, slope);
  const auto& points = curve.points;
  const auto whole = [&](std::size_t i) {
    return RatePoint{slope * kept[i], points[i].bits, points[i].distortion, points[i].levels};
  };
  if (slope >= points.front().lambda / kept.front()) return whole(0);
  for (std::size_t i = 1; i < points.size(); ++i) {
    const RatePoint &coarse = points[i - 1], &fine = points[i];
    const double above = coarse.lambda / kept[i - 1], below = fine.lambda / kept[i];
    if (slope < below) continue;
    const bool lost = kept[i - 1] < 1;
    const double part = lost ? (plain_log2(above) - plain_log2(slope)) / (plain_log2(above) - plain_log2(below))
                             : (above - slope) / (above - below);
    const auto between = [&](double from, double to) { return from + part * (to - from); };
    return {lost ? between(coarse.lambda, fine.lambda) : slope, between(coarse.bits, fine.bits),
            between(coarse.distortion, fine.distortion), part < 0.5 ? coarse.levels : fine.levels};
  }
  return whole(points.size() - 1);
}

std::vector<double> slopes_kept(const ScopeCurve& curve, double energy) {
  std::vector<double> kept;
  for (const RatePoint& point : curve.points) {
    const double left = energy > 0 ? std::max(1 - point.distortion / energy, kLeastScaleLeft) : 1;
    kept.push_back(left * left);
  }
  return kept;
}

}  // namespace lmq
