#include "sls_cluster.hpp"

#include <algorithm>
#include <limits>

#include "lmq/base/random.hpp"
#include "sls_l0.hpp"

namespace lmq {
namespace {

// A number in [0, 1) as a function of (seed, index).
double uniform(std::uint64_t seed, std::uint64_t index) {
  return static_cast<double>(mix64(draw_key(seed, index)) >> 11) * 0x1p-53;
}

// The point in which the running sum of `share` passes `part` of its total; one with a positive share.
template <class Share>
std::size_t draw(std::size_t m, double part, const Share& share) {
  double total = 0;
  for (std::size_t k = 0; k < m; ++k) total += share(k);
  double sum = 0;
  std::size_t at = m;
  for (std::size_t k = 0; k < m; ++k) {
    if (!(share(k) > 0)) continue;
    sum += share(k);
    at = k;
    if (sum > part * total) break;
  }
  return at;
}

}  // namespace

void SeededLloyd::start(SparseData data, std::size_t levels, std::uint64_t seed) {
  const std::size_t m = data.u.size();
  std::size_t point = draw(m, uniform(seed, 0), [&](std::size_t k) { return data.a[k]; });
  centres_.assign(1, data.u[point]);
  distance_.assign(m, std::numeric_limits<double>::infinity());
  while (centres_.size() < levels) {
    for (std::size_t k = 0; k < m; ++k) {
      const double e = data.u[k] - centres_.back();
      distance_[k] = std::min(distance_[k], data.a[k] * (e * e));
    }
    point = draw(m, uniform(seed, centres_.size()), [&](std::size_t k) { return distance_[k]; });
    if (point == m) break;  // squares of the distances that are left vanish
    centres_.push_back(data.u[point]);
  }
  std::ranges::sort(centres_);
}

// Cells of the nearest centres; a value in the middle goes to the smaller one. Empty cells are dropped. True when the
// cells changed.
bool SeededLloyd::assign(SparseData data) {
  CellEnds ends{0};
  for (std::size_t t = 1; t < centres_.size(); ++t) {
    const double middle = centres_[t - 1] + 0.5 * (centres_[t] - centres_[t - 1]);
    const auto end = static_cast<std::uint32_t>(std::ranges::upper_bound(data.u, middle) - data.u.begin());
    if (end > ends.back() && end < data.u.size()) ends.push_back(end);
  }
  ends.push_back(static_cast<std::uint32_t>(data.u.size()));
  const bool changed = ends != now_;
  now_ = std::move(ends);
  return changed;
}

void SeededLloyd::means(SparseData data) {
  const double centre = data.u[data.u.size() / 2];
  centres_.resize(now_.size() - 1);
  for (std::size_t t = 0; t + 1 < now_.size(); ++t) {
    const std::uint32_t begin = now_[t], end = now_[t + 1];
    centres_[t] = end == begin + 1 ? data.u[begin] : centre + (S_[end] - S_[begin]) / (W_[end] - W_[begin]);
  }
}

const CellEnds& SeededLloyd::solve(SparseData data, std::size_t levels, std::uint64_t seed, std::size_t rounds,
                                   std::size_t restarts) {
  prefix_sums(data, data.u[data.u.size() / 2], W_, S_, C_);
  const SquaredErrorCost cost{W_.data(), S_.data(), C_.data()};
  loss_ = std::numeric_limits<double>::infinity();
  for (std::size_t restart = 0; restart < std::max<std::size_t>(restarts, 1); ++restart) {
    start(data, std::min(levels, data.u.size()), seed + restart);
    now_.clear();
    for (std::size_t round = 0; assign(data) && round < rounds; ++round) means(data);
    const double loss = partition_loss(cost, now_);
    if (loss < loss_) loss_ = loss, ends_ = now_;
  }
  return ends_;
}

}  // namespace lmq
