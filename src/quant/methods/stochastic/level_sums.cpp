#include "level_sums.hpp"

#include <algorithm>
#include <cmath>

namespace lmq {

void LevelSums::clear() {
  x_.clear(), A_.clear(), B_.clear(), G_.clear(), bin_after_.clear();
  a_ = b_ = g_ = {};
  bins_ = 0;
  resolved_ = true;
}

// The edge at x with all sums so far. An edge that is there already takes them over: what lies at x adds nothing.
void LevelSums::push(double x) {
  if (!x_.empty() && x_.back() == x) {
    A_.back() = a_, B_.back() = b_, G_.back() = g_;
    return;
  }
  x_.push_back(x), A_.push_back(a_), B_.push_back(b_), G_.push_back(g_);
  bin_after_.push_back(-1);
}

void LevelSums::add(const ValueBin& bin) {
  const std::int64_t index = bins_++;
  const bool single = bin.low == bin.high;
  if (!single) {
    push(bin.low);
    bin_after_.back() = index;
    resolved_ = false;
  }
  const ExactSum b = ExactSum::of_product(bin.mass, bin.pivot);
  a_ = a_ + ExactSum{bin.mass, 0};
  b_ = b_ + b;
  g_ = g_ + b * bin.pivot;
  if (!single) {
    b_ = b_ + ExactSum{bin.first, 0};
    g_ = g_ + ExactSum::of_product(2 * bin.first, bin.pivot) + ExactSum{bin.second, 0};
  }
  push(bin.high);
}

LevelSums::At LevelSums::at(std::size_t edge, std::size_t origin) const noexcept {
  const double c = x_[origin], x = x_[edge] - c;
  const ExactSum a = A_[edge] - A_[origin], rise = B_[edge] - B_[origin], b = rise - a * c;
  const double g = ((G_[edge] - G_[origin]) - (rise + b) * c).value();
  return {x, x * a.value() - b.value(), x * b.value() - g};
}

void LevelSums::finish() {
  const std::size_t edges = x_.size();
  gx_.resize(edges), gP_.resize(edges), gH_.resize(edges);
  noise_ = 0;
  if (edges == 0) return;
  const double total = a_.value();
  const double centre = total > 0 ? std::clamp(b_.value() / total, x_.front(), x_.back()) : x_.front();
  // Sums from the edge after the centre outwards, so that far outliers do not blur the rest.
  const std::size_t origin =
      std::min<std::size_t>(static_cast<std::size_t>(std::ranges::lower_bound(x_, centre) - x_.begin()), edges - 1);
  for (std::size_t e = 0; e < edges; ++e) {
    const At here = at(e, origin);
    gx_[e] = here.x, gP_[e] = here.P, gH_[e] = here.H;
    noise_ = std::max(noise_, std::abs(here.H) + std::abs(here.x * here.P));
  }
  noise_ *= 0x1p-51;
}

double LevelSums::cost(std::size_t first, std::size_t last) const noexcept {
  if (first >= last || (last == first + 1 && bin_after_[first] < 0)) return 0;
  const double c = x_[first];
  const ExactSum width = ExactSum::of_sum(x_[last], -c);
  const ExactSum a = A_[last] - A_[first], rise = B_[last] - B_[first], b = rise - a * c;
  const ExactSum g = (G_[last] - G_[first]) - (rise + b) * c;
  return std::max(0.0, ((b * width.high + b * width.low) - g).value());
}

double LevelSums::cost_of(std::span<const std::uint32_t> path) const noexcept {
  double sum = 0;
  for (std::size_t t = 1; t < path.size(); ++t) sum += cost(path[t - 1], path[t]);
  return sum;
}

// The slope to the right of m is sum over (a, m] of w (x - x_a) minus sum over (m, b) of w (x_b - x); it does not fall
// with m.
std::size_t LevelSums::middle(std::size_t a, std::size_t b) const noexcept {
  std::size_t first = a, last = b;
  const auto rises = [&](std::size_t m) {
    const ExactSum before = (B_[m] - B_[a]) - (A_[m] - A_[a]) * x_[a];
    const ExactSum after = (A_[b] - A_[m]) * x_[b] - (B_[b] - B_[m]);
    return (before - after).value() >= 0;
  };
  while (last - first > 1) {
    const std::size_t m = first + (last - first) / 2;
    (rises(m) ? last : first) = m;
  }
  const double left = cost(a, first) + cost(first, b), right = cost(a, last) + cost(last, b);
  return left <= right ? first : last;
}

}  // namespace lmq
