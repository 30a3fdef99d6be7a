#include "sls_l1.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace lmq {
namespace {
constexpr double kInfinity = std::numeric_limits<double>::infinity();
}

double SparseL1::lambda_max(SparseData data) {
  const std::size_t m = data.u.size();
  double weight = 0, rise = 0;
  for (std::size_t k = 0; k < m; ++k) weight += data.a[k], rise += data.a[k] * (data.u[k] - data.u[0]);
  const double mean = rise / weight;  // minus u_1
  double largest = 0, short_by = 0;   // sum over t <= k of a_t (mean - u_t)
  for (std::size_t k = 0; k + 1 < m; ++k) {
    short_by += data.a[k] * (mean - (data.u[k] - data.u[0]));
    largest = std::max(largest, (data.u[k + 1] - data.u[k]) * short_by);
  }
  return largest;
}

void SparseL1::load_slopes(SparseData data) {
  const std::size_t m = data.u.size();
  slope_.resize(m + 1);
  slope_[0] = slope_[m] = 0;
  for (std::size_t k = 1; k < m; ++k) slope_[k] = 1 / (data.u[k] - data.u[k - 1]);
}

// Puts a block on top of those below it and merges while their values do not ascend. Differences of values are taken
// between first points, so that gaps far smaller than the values keep their precision.
inline void SparseL1::push(SparseData data, PooledBlock block, std::span<const double> slope, double scale) {
  const auto shift = [&](const PooledBlock& b) { return scale * (slope[b.begin] - slope[b.end]); };
  block.value = (block.rise - shift(block)) / block.weight;  // minus u_begin, until the end
  while (!blocks_.empty()) {
    const PooledBlock& below = blocks_.back();
    const double gap = data.u[block.begin] - data.u[below.begin];
    if (gap + block.value > below.value) break;
    block.rise = below.rise + (block.rise + block.weight * gap);
    block.weight += below.weight;
    block.begin = below.begin;
    block.value = (block.rise - shift(block)) / block.weight;
    blocks_.pop_back();
  }
  blocks_.push_back(block);
}

void SparseL1::pool_points(SparseData data, std::size_t from, std::span<const double> slope, double scale) {
  blocks_.clear();
  for (std::size_t k = from; k < data.u.size(); ++k)
    push(data, {data.a[k], 0, 0, static_cast<std::uint32_t>(k), static_cast<std::uint32_t>(k + 1)}, slope, scale);
  for (PooledBlock& block : blocks_) block.value += data.u[block.begin];
}

std::span<const PooledBlock> SparseL1::pool(SparseData data, std::span<const double> slope) {
  pool_points(data, 0, slope, 1);
  return blocks_;
}

// Values below 0 become 0, and those with the points [0, zero_from) one block at 0.
void SparseL1::clip(std::size_t zero_from) {
  std::size_t count = 0;
  while (count < blocks_.size() && blocks_[count].value <= 0) ++count;
  if (count == 0 && zero_from == 0) return;
  const std::uint32_t end = count > 0 ? blocks_[count - 1].end : static_cast<std::uint32_t>(zero_from);
  blocks_.erase(blocks_.begin(), blocks_.begin() + static_cast<std::ptrdiff_t>(count));
  blocks_.insert(blocks_.begin(), PooledBlock{0, 0, 0, 0, end});
}

std::span<const PooledBlock> SparseL1::solve(SparseData data, double lambda, SparseOffset offset) {
  load_slopes(data);
  if (offset == SparseOffset::free) {
    pool_points(data, 0, slope_, lambda);
    return blocks_;
  }
  const double first = data.u[0];
  if (first > 0) {
    slope_[0] = 1 / first;
    pool_points(data, 0, slope_, lambda);
    clip(0);
    return blocks_;
  }
  if (first < 0) {
    slope_[0] = 1 / first;  // x_1 below 0: growing is rewarded
    pool_points(data, 0, slope_, lambda);
    if (blocks_[0].value < 0) return blocks_;
    slope_[0] = -1 / first;
    pool_points(data, 0, slope_, lambda);
    if (blocks_[0].value > 0) return blocks_;
  }
  pool_points(data, 1, slope_, lambda);
  clip(1);
  return blocks_;
}

// ---- the path ----

// blocks_ becomes the solution for a lambda above that of the blocks it holds.
void SparseL1::pool_blocks(SparseData data, double lambda) {
  std::swap(blocks_, next_blocks_);
  blocks_.clear();
  for (const PooledBlock& block : next_blocks_) push(data, block, slope_, lambda);
}

// Single points at first; then pooled for growing lambda while enough levels are left, which is much quicker than to
// merge one by one.
void SparseL1::prepare_path(SparseData data, std::size_t most_levels) {
  constexpr double kFirst = 0x1p-60, kStep = 8;
  const std::size_t m = data.u.size(), enough = std::max<std::size_t>(2 * most_levels, 64);
  load_slopes(data);
  blocks_.clear();
  for (std::size_t k = 0; k < m; ++k)
    blocks_.push_back({data.a[k], 0, 0, static_cast<std::uint32_t>(k), static_cast<std::uint32_t>(k + 1)});
  const double most = lambda_max(data);
  for (double part = kFirst; part < 1 && blocks_.size() > enough; part *= kStep) {
    pool_blocks(data, part * most);
    if (blocks_.size() >= most_levels) continue;
    std::swap(blocks_, next_blocks_);  // too far
    return;
  }
}

// The lambda at which two neighbours have one value: (mean' - mean) / (s' - s), s = (c_begin - c_end) / weight.
inline double SparseL1::meeting(SparseData data, std::uint32_t left, std::uint32_t right) const {
  const PooledBlock &l = blocks_[left], &r = blocks_[right];
  const double gap = data.u[r.begin] - data.u[l.begin];
  const double closing = (slope_[r.begin] - slope_[r.end]) / r.weight - (slope_[l.begin] - slope_[l.end]) / l.weight;
  return closing > 0 ? ((gap - l.rise / l.weight) + r.rise / r.weight) / closing : kInfinity;
}

void SparseL1::plant(SparseData data) {
  const auto count = static_cast<std::uint32_t>(blocks_.size());
  leaves_ = std::bit_ceil(std::max<std::size_t>(2, count));
  tree_.assign(2 * leaves_, kInfinity);
  before_.resize(count), after_.resize(count);
  for (std::uint32_t b = 0; b < count; ++b) before_[b] = b - 1, after_[b] = b + 1;
  for (std::uint32_t b = 1; b < count; ++b) tree_[leaves_ + b] = meeting(data, b - 1, b);
  for (std::size_t i = leaves_ - 1; i > 0; --i) tree_[i] = std::min(tree_[2 * i], tree_[2 * i + 1]);
}

void SparseL1::set_time(std::uint32_t edge, double time) {
  std::size_t i = leaves_ + edge;
  tree_[i] = time;
  for (i /= 2; i > 0; i /= 2) {
    const double least = std::min(tree_[2 * i], tree_[2 * i + 1]);
    if (tree_[i] == least) return;
    tree_[i] = least;
  }
}

std::uint32_t SparseL1::soonest() const {
  std::size_t i = 1;
  while (i < leaves_) i = 2 * i + (tree_[2 * i] == tree_[i] ? 0 : 1);
  return static_cast<std::uint32_t>(i - leaves_);
}

// Block `right` goes into the one before it; returns that.
std::uint32_t SparseL1::merge(SparseData data, std::uint32_t right) {
  const std::uint32_t left = before_[right];
  PooledBlock &l = blocks_[left], &r = blocks_[right];
  l.rise += r.rise + r.weight * (data.u[r.begin] - data.u[l.begin]);
  l.weight += r.weight;
  l.end = r.end;
  after_[left] = after_[right];
  if (after_[left] < blocks_.size()) before_[after_[left]] = left;
  return left;
}

std::span<const VanishingEdge> SparseL1::path(SparseData data, std::size_t most_levels) {
  prepare_path(data, most_levels);
  path_.clear();
  if (blocks_.size() < 2) return path_;
  plant(data);
  double lambda = 0;
  const auto count = static_cast<std::uint32_t>(blocks_.size());
  for (std::uint32_t left_over = count; left_over > 1; --left_over) {
    const std::uint32_t right = soonest();
    lambda = std::max(lambda, tree_[1]);
    if (left_over <= most_levels) path_.push_back({blocks_[right].begin, lambda});
    const std::uint32_t left = merge(data, right);
    set_time(right, kInfinity);
    if (left > 0) set_time(left, meeting(data, before_[left], left));
    if (after_[left] < count) set_time(after_[left], meeting(data, left, after_[left]));
  }
  std::ranges::reverse(path_);
  return path_;
}

void cell_ends(std::span<const PooledBlock> blocks, CellEnds& ends) {
  ends.assign(1, 0);
  for (const PooledBlock& block : blocks) ends.push_back(block.end);
}

void cell_ends(std::span<const VanishingEdge> path, std::size_t levels, std::size_t m, CellEnds& ends) {
  ends.assign({0, static_cast<std::uint32_t>(m)});
  for (std::size_t k = 0; k + 1 < levels && k < path.size(); ++k) ends.push_back(path[k].edge);
  std::ranges::sort(ends);
}

}  // namespace lmq
