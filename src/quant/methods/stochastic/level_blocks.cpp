// Blocks of edges, which the narrowing starts with and drops.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "level_narrowing.hpp"

namespace lmq {

LevelNarrowing::Interval LevelNarrowing::interval(std::uint32_t first, std::uint32_t last) const {
  const double width = line_->x(last) - line_->x(first);
  return {first, last, width > 0 ? line_->cost(first, last) / width : 0.0};
}

// Blocks of cost at most `most` each, as long as possible; gives up at `limit` of them.
std::vector<std::uint32_t> LevelNarrowing::greedy(double most, std::size_t limit) const {
  const auto end = static_cast<std::uint32_t>(line_->edges() - 1);
  std::vector<std::uint32_t> ends{0};
  std::uint32_t step = 1;
  while (ends.back() < end && ends.size() <= limit) {
    const std::uint32_t from = ends.back();
    std::uint32_t good = from + 1, bad = end + 1;
    while (good + step < bad) {
      if (line_->cost(from, good + step) > most) {
        bad = good + step;
        break;
      }
      good += step, step *= 2;
    }
    while (bad - good > 1) {
      const std::uint32_t middle = good + (bad - good) / 2;
      (middle > end || line_->cost(from, middle) > most ? bad : good) = middle;
    }
    step = std::max<std::uint32_t>(1, (good - from) / 2);
    ends.push_back(good);
  }
  return ends;
}

std::vector<std::uint32_t> LevelNarrowing::equal_cost_blocks(std::size_t blocks) const {
  const std::size_t end = line_->edges() - 1;
  if (end <= 2 * blocks) {
    std::vector<std::uint32_t> all(end + 1);
    std::iota(all.begin(), all.end(), 0u);
    return all;
  }
  const auto wanted = static_cast<double>(blocks);
  double most = line_->cost(0, end) / (wanted * wanted * wanted);
  std::vector<std::uint32_t> ends;
  for (int round = 0; round < 12; ++round) {
    ends = greedy(most, 3 * blocks);
    const double ratio = static_cast<double>(ends.size() - 1) / wanted;
    if (ends.back() == end && ratio > 0.7 && ratio < 1.4) break;
    most *= std::clamp(ratio * ratio * ratio, 1e-3, 1e3);
    if (!(most > 0)) break;
  }
  if (ends.back() != end) ends.push_back(static_cast<std::uint32_t>(end));
  return ends;
}

void LevelNarrowing::fill(Layer& layer, std::vector<Interval>&& alive) {
  layer.alive = std::move(alive);
  layer.node.clear(), layer.before.clear();
  for (const Interval& one : layer.alive) {
    if (layer.node.empty() || layer.node.back() != one.first) layer.node.push_back(one.first);
    layer.before.push_back(static_cast<std::uint32_t>(layer.node.size() - 1));
    if (one.last != one.first) layer.node.push_back(one.last);
  }
  layer.place.assign(layer.node.begin(), layer.node.end());
  nodes_seen_ += layer.node.size();
}

// Every level may lie in every block; the first and the last are fixed.
void LevelNarrowing::start(std::size_t blocks) {
  const auto ends = equal_cost_blocks(blocks);
  const auto end = static_cast<std::uint32_t>(line_->edges() - 1);
  std::vector<Interval> all;
  for (std::size_t k = 0; k + 1 < ends.size(); ++k) all.push_back(interval(ends[k], ends[k + 1]));
  layer_.resize(levels_);
  for (std::size_t t = 1; t + 1 < levels_; ++t) fill(layer_[t], std::vector<Interval>(all));
  fill(layer_[0], {{0, 0, 0}});
  fill(layer_[levels_ - 1], {{end, end, 0}});
  path_.resize(levels_);
  for (std::size_t t = 0; t < levels_; ++t) path_[t] = ends[t * (ends.size() - 1) / (levels_ - 1)];
  cost_ = line_->cost_of(path_);
  improve();
}

}  // namespace lmq
