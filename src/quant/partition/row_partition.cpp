#include "row_partition.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lmq/base/rough_cube_root.hpp"

namespace lmq {
namespace {

constexpr int kMaxRuns = 16;
constexpr std::size_t kVector = 8, kNarrow = 5;
constexpr std::size_t kCell = 32, kReach = 36, kUnitReach = 44, kFew = 256, kMaxOfTwo = 4096;

// The more cells, the steeper: loss ~ (1 / cells - 1 / m)^2 is 0 where every point has its own, and ~ cells^-2 before.
double share(double cells, double m) { return 1 / cells - 1 / m; }

}  // namespace

void RowPartition::measure(const SortedPoints& points, bool unit) {
  measure_.resize(points.m);
  double sum = measure_[0] = 0;
  for (std::size_t i = 0; i + 1 < points.m; ++i) {
    const double gap = points.value[i + 1] - points.value[i];
    sum += rough_cube_root(unit ? gap * gap : gap * gap * 0.5 * (points.weight[i] + points.weight[i + 1]));
    measure_[i + 1] = sum;
  }
}

// Few points: rows of up to four vectors.
bool RowPartition::always_suits(std::size_t m, std::size_t cells) {
  return cells == 2 ? m <= kMaxOfTwo : m <= kFew && m <= kCell * cells;
}

// Many: by the mean number of points in a cell that ends at a point, which
// is far above m / cells where some cells have most of the points.
bool RowPartition::is_preferable(const SortedPoints& points, bool unit, std::size_t cells) {
  if (always_suits(points.m, cells)) return true;
  if (cells == 2 || points.m > kCell * cells) return false;
  measure(points, unit);
  const double share = measure_.back() / static_cast<double>(cells);
  std::size_t sum = 0;
  for (std::size_t j = 1, i = 0; j < points.m; ++j) {
    while (measure_[j] - measure_[i] > share) ++i;
    sum += j - i;
  }
  return measured_ = sum <= (unit ? kUnitReach : kReach) * points.m;
}

// -d loss / d cells by high-rate theory (Panter & Dite 1951): loss ~ (sum of (gap^2 weight)^(1/3))^3 / (12 cells^2).
// Factor and powers were measured: points lie at random, cells are of few points.
double RowPartition::first_penalty(bool unit) const {
  const auto cells = static_cast<double>(cells_);
  const double full = measure_.back() / cells, part = 1 - cells / static_cast<double>(p_.m);
  return full * full * full / 6 * (unit ? 1.4 * part * std::sqrt(part) : 1.6 * part * part * part);
}

void RowPartition::run(double penalty) {
  row_scans().penalised(p_, {penalty, f_.data() + kRowPad, back_.data()});
  path_.clear();
  for (auto j = static_cast<std::uint32_t>(p_.m); j > 0; j = back_[j]) path_.push_back(j);
  path_.push_back(0);
  std::ranges::reverse(path_);
}

// A power law, a steeper one where it was too flat, or the chord between runs on both sides, which always gets there;
// -1 where the chord leads nowhere.
double RowPartition::next_penalty(const Found& now, int run) const {
  const auto m = static_cast<double>(p_.m), wanted = static_cast<double>(cells_);
  if (run % 4 == 3 || now.cells >= m || (few_.penalty > 0 && many_.penalty > 0)) {
    const double chord = (few_.loss - many_.loss) / (many_.cells - few_.cells);
    return chord > 0 && chord != now.penalty ? chord : -1;
  }
  const double ratio = share(wanted + (now.cells < wanted ? -0.3 : 0.3), m) / share(now.cells, m);
  const double cube = ratio * ratio * ratio;
  return now.penalty * (run == 0 ? cube : cube * cube);
}

void RowPartition::whole_windows() {
  for (std::size_t t = 0; t <= cells_; ++t) {
    low_[t] = static_cast<std::uint32_t>(t);
    high_[t] = static_cast<std::uint32_t>(p_.m - cells_ + t);
  }
  high_[0] = 0, low_[cells_] = high_[cells_];
}

// The windows that path_ leaves; returns about how many vectors they take.
std::size_t RowPartition::windows_of_path() {
  const auto k = static_cast<std::ptrdiff_t>(path_.size() - 1), cells = static_cast<std::ptrdiff_t>(cells_);
  const auto end = [&](std::ptrdiff_t t) {
    return path_[static_cast<std::size_t>(std::clamp<std::ptrdiff_t>(t, 0, k))];
  };
  whole_windows();
  std::size_t area = 0;
  for (std::ptrdiff_t t = 1; t < cells; ++t) {
    const auto at = static_cast<std::size_t>(t);
    low_[at] = std::max(low_[at], end(std::min(t, t - (cells - k))));
    high_[at] = std::min(high_[at], end(std::max(t, t - (cells - k))));
    area += (high_[at] - low_[at] + 1) * ((high_[at - 1] - low_[at - 1]) / kVector + 1);
  }
  return area;
}

void RowPartition::layers(CellEnds& ends) {
  std::size_t rows = 0;
  for (std::size_t t = 1; t <= cells_; ++t) rows += high_[t] - low_[t] + 1;
  window_back_.resize(rows), at_.resize(cells_ + 1), g_.resize(p_.m + 1 + kRowPad);
  row_scans().windows(p_, {cells_, low_.data(), high_.data(), f_.data() + kRowPad, g_.data() + kRowPad,
                           window_back_.data(), at_.data()});
  ends.resize(cells_ + 1);
  ends[cells_] = static_cast<std::uint32_t>(p_.m);
  for (std::size_t t = cells_; t > 0; --t) ends[t - 1] = window_back_[at_[t] + (ends[t] - low_[t])];
}

void RowPartition::solve(const SortedPoints& points, bool unit, std::size_t cells, CellEnds& ends) {
  p_ = {points.m, points.W, points.S, points.C, nullptr, points.m > kNarrow * cells};
  if (unit) {
    const std::size_t room = points.m + kRowPad;
    if (inverse_.size() < room) {
      inverse_.resize(room);
      for (std::size_t k = 2; k <= room; ++k) inverse_[room - k] = 1 / static_cast<double>(k);
      inverse_[room - 1] = std::numeric_limits<double>::infinity();  // a cell of one point costs nothing
    }
    p_.inverse = inverse_.data() + inverse_.size();
  }
  cells_ = cells;
  f_.resize(p_.m + 1 + kRowPad), back_.resize(p_.m + 1), low_.resize(cells + 1), high_.resize(cells + 1);
  if (cells == 2) {
    whole_windows();
    return layers(ends);
  }
  const double m = static_cast<double>(p_.m), wanted = static_cast<double>(cells);
  few_ = {1, 0, SquaredErrorCost{p_.W, p_.S, p_.C}(0, p_.m)};
  many_ = {m, 0, 0};
  const std::size_t enough = p_.m * (p_.m / cells / kVector + 2);  // vectors of one run
  if (!measured_) measure(points, unit);
  measured_ = false;
  double penalty = first_penalty(unit);
  for (int run = 0;; ++run) {
    this->run(penalty);
    if (path_.size() == cells + 1) {
      std::swap(ends, path_);
      return;
    }
    if (windows_of_path() <= enough || run == kMaxRuns) return layers(ends);  // of any path they are right
    const Found now{static_cast<double>(path_.size() - 1), penalty,
                    f_[kRowPad + p_.m] - penalty * static_cast<double>(path_.size() - 1)};
    if (now.cells < wanted && now.cells >= few_.cells) few_ = now;
    if (now.cells > wanted && now.cells <= many_.cells) many_ = now;
    penalty = next_penalty(now, run);
    if (!(penalty > 0)) return layers(ends);
  }
}

}  // namespace lmq
