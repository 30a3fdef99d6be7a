#include "level_fit.hpp"

#include <algorithm>
#include <cmath>

#include "lmq/base/error.hpp"
#include "worst_levels.hpp"

namespace lmq {
namespace {

constexpr std::size_t kMaxNewBins = std::size_t{1} << 19;  // asked for in one round

ValueBin line_bin(const Group& group, std::size_t j) {
  if (group.low[j] == group.high[j]) return {group.low[j], group.low[j], group.mass[j], group.low[j], 0, 0};
  return {group.low[j], group.high[j], group.mass[j], group.mean[j], 0, group.scatter[j]};
}

LevelSums line_of(const Group& group) {
  LevelSums line;
  for (std::size_t j = 0; j < group.size(); ++j) line.add(line_bin(group, j));
  line.finish();
  return line;
}

// Bins in cells of equal width: of a cell only the ends of its values may be levels.
LevelSums gridded(const Group& group, std::size_t cells) {
  const double low = group.minimum, width = (double{group.maximum} - low) / static_cast<double>(cells);
  LevelSums line;
  for (std::size_t j = 0; j < group.size();) {
    const double end = low + (std::floor((group.low[j] - low) / width) + 1) * width;
    ValueBin cell = line_bin(group, j);
    for (++j; j < group.size() && group.low[j] < end; ++j) {
      const ValueBin bin = line_bin(group, j);
      const double away = bin.pivot - cell.pivot;
      cell.high = bin.high;
      cell.mass += bin.mass;
      cell.first += bin.mass * away;
      cell.second += bin.second + bin.mass * away * away;
    }
    line.add(cell);
  }
  line.finish();
  return line;
}

std::vector<float> as_floats(const std::vector<double>& levels) {
  std::vector<float> rounded;
  for (const double level : levels)
    if (const auto next = static_cast<float>(level) + 0.0f; rounded.empty() || next > rounded.back())
      rounded.push_back(next);
  return rounded;
}

LevelFit fit_total(const Group& group, const LevelChoice& choice) {
  const LevelSums line = choice.grid > 0 ? gridded(group, choice.grid) : line_of(group);
  LevelNarrowing solver;
  const auto engine = choice.grid > 0 ? LevelNarrowing::Engine::layered : LevelNarrowing::Engine::automatic;
  const auto found = solver.solve(line, choice.levels, choice.slack, engine);
  std::vector<double> levels;
  for (const std::uint32_t edge : found.path) levels.push_back(line.x(edge));
  LevelFit fit{{as_floats(levels), found.cost, choice.grid > 0 ? 0 : found.bound}, {}};
  if (choice.grid == 0) fit.open_bins = found.open_bins;
  return fit;
}

LevelFit fit_largest(const Group& group, const LevelChoice& choice) {
  std::vector<double> low(group.low.begin(), group.low.end()), high(group.high.begin(), group.high.end());
  const auto found = WorstLevels(low, high).solve(choice.levels, choice.slack);
  return {{as_floats(found.levels), found.variance, found.bound}, found.open_bins};
}

}  // namespace

LevelFit fit_levels(const Group& group, const LevelChoice& choice) {
  if (group.minimum == group.maximum) return {{{group.minimum}, 0, 0}, {}};
  return choice.objective == LevelObjective::total_variance ? fit_total(group, choice) : fit_largest(group, choice);
}

std::vector<KeyRange> ranges_of_bins(const Group& group, std::span<const std::uint32_t> bins) {
  return 2 * bins.size() > kMaxNewBins ? std::vector<KeyRange>() : refine_at(group, bins, kMaxNewBins);
}

}  // namespace lmq
