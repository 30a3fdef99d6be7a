#include "step_search.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <optional>

namespace lmq {
namespace {
constexpr std::size_t kLanes = 8;
constexpr double kRound = 0x1.8p52;
constexpr double kMinFactor = 0.15, kMaxFactor = 1.05;
constexpr int kMaxRounds = 20;

/// One group: its values and what their errors weigh.
struct Values {
  const float* x = nullptr;
  const float* weight = nullptr;  // nullptr: all ones
  std::size_t count = 0;
  double first = 0, last = 0;  // places of the first and last level, in steps
};
struct Grid {
  double step = 0, offset = 0;
};

/// Sums over the nearest points p of a grid: of weight h, and of e = p - (x - offset) / step.
struct Sums {
  double ee = 0, ep = 0, e = 0, pp = 0, p = 0, h = 0;
};

double error_of(const Values& v, const Grid& grid) noexcept {
  std::array<double, kLanes> lane{};
  const double inverse = 1 / grid.step, levels = v.last - v.first;
  const auto one = [&](std::size_t i) {
    const double place = (double{v.x[i]} - grid.offset) * inverse - v.first;
    const double e = (std::min(std::max(place, 0.0), levels) + kRound) - kRound - place;
    return e * e * (v.weight ? double{v.weight[i]} : 1.0);
  };
  std::size_t i = 0;
  for (; i + kLanes <= v.count; i += kLanes)
    for (std::size_t k = 0; k < kLanes; ++k) lane[k] += one(i + k);
  for (; i < v.count; ++i) lane[i % kLanes] += one(i);
  double sum = 0;
  for (const double part : lane) sum += part;
  return sum * grid.step * grid.step;
}

Sums sums_of(const Values& v, const Grid& grid) noexcept {
  Sums s;
  const double levels = v.last - v.first;
  for (std::size_t i = 0; i < v.count; ++i) {
    const double place = (double{v.x[i]} - grid.offset) / grid.step - v.first;
    const double code = (std::min(std::max(place, 0.0), levels) + kRound) - kRound;
    const double h = v.weight ? double{v.weight[i]} : 1.0, e = code - place, p = code + v.first;
    s.ee += h * e * e, s.ep += h * e * p, s.e += h * e, s.pp += h * p * p, s.p += h * p, s.h += h;
  }
  return s;
}

/// The grid of least error for the codes that are nearest on `grid`.
Grid refitted(const Sums& s, const Grid& grid, bool free) noexcept {
  Grid next = grid;
  const double determinant = s.pp * s.h - s.p * s.p;
  if (free && determinant > 1e-9 * s.pp * s.h) {
    next.step -= grid.step * (s.ep * s.h - s.e * s.p) / determinant;
    next.offset -= grid.step * (s.e * s.pp - s.ep * s.p) / determinant;
  } else if (s.pp > 0) {
    next.step -= grid.step * s.ep / s.pp;
  }
  return next.step > 0 ? next : grid;
}

/// The grid that holds all values exactly as a reader computes levels, where there is one of so many levels: the step
/// is the least gap, of the values or 0 among them.
std::optional<Grid> exact_grid(const Values& v, bool free) {
  const auto levels = static_cast<std::size_t>(v.last - v.first) + 1;
  std::vector<float> distinct;
  for (std::size_t i = 0; i < v.count; ++i) {
    const float value = v.x[i] + 0.0F;
    const auto at = std::ranges::lower_bound(distinct, value);
    if (at != distinct.end() && *at == value) continue;
    if (distinct.size() == levels) return std::nullopt;
    distinct.insert(at, value);
  }
  float step = std::numeric_limits<float>::infinity();
  for (std::size_t i = 1; i < distinct.size(); ++i) step = std::min(step, distinct[i] - distinct[i - 1]);
  if (!free)
    for (const float value : distinct)
      if (value != 0) step = std::min(step, std::fabs(value) * (v.first == std::floor(v.first) ? 1.0F : 2.0F));
  if (!(step > 0) || !std::isfinite(step)) return std::nullopt;
  const double offset = free ? double{distinct.front()} - double{step} * v.first : 0.0;
  const auto low = static_cast<float>(offset + double{step} * v.first);
  for (const float value : distinct) {
    const double place = std::floor((double{value} - double{low}) / double{step} + 0.5);
    const float rise = static_cast<float>(place) * step;
    if (!(place >= 0 && place <= v.last - v.first) || low + rise != value) return std::nullopt;
  }
  return Grid{double{step}, offset};
}

Grid best_grid(const Values& v, std::size_t factors, bool free) {
  float low = v.x[0], high = v.x[0];
  for (std::size_t i = 1; i < v.count; ++i) low = std::min(low, v.x[i]), high = std::max(high, v.x[i]);
  if (low == high) return {0, double{low} + 0.0};
  if (const auto exact = exact_grid(v, free)) return *exact;
  const double middle = free ? (double{low} + double{high}) / 2 : 0;
  const double reach = std::max(std::fabs(double{low} - middle), std::fabs(double{high} - middle));
  const double whole = reach / std::max(-v.first, 0.5);
  Grid best;
  double least = std::numeric_limits<double>::infinity();
  const auto look = [&](double from, double to) {
    for (std::size_t f = 0; f < factors; ++f) {
      const double part = factors < 2 ? 1 : static_cast<double>(f) / static_cast<double>(factors - 1);
      const double step = from + (to - from) * part;
      const Grid grid{step, middle - (free ? step * (v.first + v.last) / 2 : 0)};
      const double error = error_of(v, grid);
      if (error < least) least = error, best = grid;
    }
  };
  look(whole * kMinFactor, whole * kMaxFactor);
  const double near = whole * (kMaxFactor - kMinFactor) / static_cast<double>(std::max<std::size_t>(factors, 2) - 1);
  look(std::max(best.step - near, best.step / 2), best.step + near);
  for (int round = 0; round < kMaxRounds; ++round) {
    const Grid next = refitted(sums_of(v, best), best, free);
    const double error = error_of(v, next);
    if (!(error < least)) break;
    least = error, best = next;
  }
  return best;
}
}  // namespace

void search_steps(GridRows& rows, std::size_t factors) {
  const GridShape& shape = rows.shape;
  std::vector<float> diagonal;
  if (!rows.curvature.gram.empty())
    for (std::size_t c = 0; c < shape.cols; ++c) diagonal.push_back(static_cast<float>(rows.diagonal(0, c)));
  for (std::size_t r = 0; r < shape.rows; ++r)
    for (std::size_t g = 0; g < shape.groups(); ++g) {
      const std::size_t begin = g * shape.group, at = r * shape.cols + begin;
      Values v{rows.x.data() + at, nullptr, shape.group_end(g) - begin, shape.first,
               shape.first + static_cast<double>(shape.levels - 1)};
      if (!diagonal.empty()) v.weight = diagonal.data() + begin;
      if (!rows.curvature.weights.empty()) v.weight = rows.curvature.weights.data() + at;
      const Grid grid = best_grid(v, factors, shape.free_offset);
      const std::size_t book = r * shape.groups() + g;
      rows.step[book] = grid.step, rows.offset[book] = grid.offset;
    }
  assign_nearest(rows);
}

}  // namespace lmq
