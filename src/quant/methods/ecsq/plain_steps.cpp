#include "plain_steps.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace lmq {
namespace {

/// Spacing 1 below T, then 2^o in octave o, T 2^(o-1) <= |u| < T 2^o.
struct Companding {
  double inner = std::numeric_limits<double>::infinity();  // T, even

  /// Number of the nearest level in steps; halves go away from 0.
  [[nodiscard]] double nearest(double u) const noexcept {
    const double size = std::fabs(u);
    double spacing = 1;
    for (double end = inner; size >= end; end *= 2) spacing *= 2;
    return std::copysign(spacing * std::floor(size / spacing + 0.5), u);
  }
};

/// What stands for 16 significant bits of a positive double.
double short_step(double step) noexcept {
  constexpr unsigned kDropped = 52 - 15;
  const auto bits = std::bit_cast<std::uint64_t>(step);
  return std::bit_cast<double>((bits + (std::uint64_t{1} << (kDropped - 1))) >> kDropped << kDropped);
}

/// Cells of equal level number, and the numbers.
struct Cells {
  std::vector<std::uint32_t> ends{0};
  std::vector<double> numbers;
};

Cells cells_of(const RateSums& line, double step, const Companding& companding) {
  Cells cells;
  for (std::uint32_t k = 0; k < line.points; ++k) {
    const double number = companding.nearest(line.value[k] / step) + 0.0;
    if (!cells.numbers.empty() && number == cells.numbers.back()) {
      cells.ends.back() = k + 1;
      continue;
    }
    cells.numbers.push_back(number);
    cells.ends.push_back(k + 1);
  }
  return cells;
}

/// The finest companding that leaves at most `most` cells, T = 2^n * {1, 1.25, 1.5, 1.75}. At T = 2 an octave has one
/// level, so 256 levels reach over 2^127 steps.
Cells fitting_cells(const RateSums& line, double step, std::size_t most) {
  Cells cells = cells_of(line, step, {});
  const double reach = std::max(std::fabs(cells.numbers.front()), std::fabs(cells.numbers.back()));
  double octave = std::ldexp(1.0, std::ilogb(std::min(reach, 4.0 * static_cast<double>(most))));
  for (; cells.numbers.size() > most && octave >= 2; octave /= 2)
    for (const double part : {1.75, 1.5, 1.25, 1.0}) {
      cells = cells_of(line, step, {2 * std::floor(octave * part / 2)});
      if (cells.numbers.size() <= most) break;
    }
  return cells;
}

/// Numbers of steps become levels, at most the largest float: the nearest grid point of a weight may lie beyond. True
/// when none did.
bool keep_finite(std::span<double> levels, double step) noexcept {
  constexpr double kLargest = std::numeric_limits<float>::max();
  bool within = true;
  for (double& level : levels) {
    level *= step;
    if (std::fabs(level) > kLargest) level = std::copysign(kLargest, level), within = false;
  }
  return within;
}

/// Squared error about the levels instead of the cells' means.
double error_about(const RateSums& line, const IntervalCode& code, std::span<const double> levels) {
  double sum = 0;
  const CellColumns edges = line.columns();
  for (std::size_t t = 0; t < levels.size(); ++t) {
    const std::size_t i = code.ends[t], j = code.ends[t + 1];
    const double mass = line.a[j] - line.a[i], off = (line.b[j] - line.b[i]) / mass + line.centre - levels[t];
    sum += cell_error(edges, i, j, false) + mass * (off * off);
  }
  return sum;
}

}  // namespace

UniformCode plain_code(const RateSums& line, double lambda, std::size_t most_cells) {
  // lambda = 2 ln 2 D, D = step^2 / 12.
  const double step = short_step(std::sqrt(lambda * line.count / line.mass * 8.656170245333781));
  Cells cells = fitting_cells(line, step, most_cells);
  const double first = cells.numbers.front(), count = cells.numbers.back() - first + 1;
  UniformCode code{.code = interval_code(line, std::move(cells.ends)), .step = step};
  code.levels = std::move(cells.numbers);
  const bool within = keep_finite(code.levels, step);
  code.code.distortion = error_about(line, code.code, code.levels);
  if (!within || count > static_cast<double>(most_cells)) return code;
  code.on_grid = true;
  code.low = first * step;
  code.grid_levels = static_cast<std::size_t>(count);
  return code;
}

}  // namespace lmq
