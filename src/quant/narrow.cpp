// Bounds: which blocks of edges may hold a threshold of an optimal path.
#include "narrow.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace lmq {
namespace {
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::size_t kBlocksPerCell = 8;
constexpr double kMargin = 1e-10;                          // of the loss: far above rounding, far below what matters
constexpr std::size_t kMostPlaces = std::size_t{1} << 20;  // before a split by four: 400 bytes each at the end
}  // namespace

// Every threshold may lie in every block.
void Narrowing::all_places() {
  place_.assign(1, {0, 0});
  place_at_.assign({0, 1});
  for (std::size_t t = 1; t < cells_; ++t) {
    for (std::size_t k = 1; k < blocks_.size(); ++k) {
      const bool last = k + 1 == blocks_.size();
      if (inside_)
        place_.push_back({2 * blocks_[k - 1] + 1, 2 * blocks_[k] - (last ? 1 : 0)});
      else if (!last || blocks_[k - 1] + 1 < blocks_[k])
        place_.push_back({blocks_[k - 1] + 1, blocks_[k] - (last ? 1 : 0)});
    }
    place_at_.push_back(static_cast<std::uint32_t>(place_.size()));
  }
  const auto end = static_cast<std::uint32_t>(inside_ ? 2 * p_.m : p_.m);
  place_.push_back({end, end});
  place_at_.push_back(static_cast<std::uint32_t>(place_.size()));
}

// Extremes of s_t (as a right end: s_, as a left end of the next cell: q_) and of phi_t over every block.
void Narrowing::measure_places() {
  for (auto* array :
       {&s_low_, &s_high_, &q_low_, &q_high_, &w_left_, &w_right_, &phi_low_, &forward_, &backward_, &onward_})
    array->resize(place_.size());
  for (std::size_t t = 1; t <= cells_; ++t) {
    Layer& layer = layer_[t];
    locate(layer.level, layer.level_left, layer.level_right, layer.level_dip);
    if (t < cells_) locate(layer.theta, layer.theta_left, layer.theta_right, layer.theta_dip);
  }
  const auto extremes = [&](std::size_t t, std::size_t from, std::uint32_t left, std::uint32_t right, double shift,
                            double& low, double& high) {
    const Layer& layer = layer_[t];
    const double first = s(t, left, from) + shift, last = s(t, right, from) + shift;
    low = std::min(first, last);
    high = std::max(first, last);
    if (left <= layer.level_left && layer.level_right <= right)
      low = std::min(low, s(t, layer.level_left, from) + shift - layer.level_dip);
  };
  for (std::size_t t = 0; t <= cells_; ++t)
    for (std::size_t k = place_at_[t]; k < place_at_[t + 1]; ++k) {
      const std::uint32_t left = left_edge(place_[k]), right = right_edge(place_[k]);
      w_left_[k] = p_.W[left];
      w_right_[k] = p_.W[right];
      phi_low_[k] = 0;
      if (t > 0) extremes(t, reference_[t], left, right, layer_[t].residual, s_low_[k], s_high_[k]);
      if (t < cells_) extremes(t + 1, reference_[t], left, right, 0.0, q_low_[k], q_high_[k]);
      if (t == 0 || t == cells_) continue;
      const Layer& layer = layer_[t];
      phi_low_[k] = std::min(phi(t, left), phi(t, right));
      if (left <= layer.theta_left && layer.theta_right <= right)
        phi_low_[k] = std::min(phi_low_[k], phi(t, layer.theta_left) - layer.step * layer.theta_dip);
    }
}

// At most M_t for a cell from block `before` to block `after` that touch or are the same; -1 when there is no such
// cell.
double Narrowing::touching(std::size_t t, std::size_t before, std::size_t after) const {
  const Place a = place_[before], b = place_[after];
  if (a.first > b.first || (a == b && a.first == a.last && (!inside_ || a.first % 2 == 0))) return -1;
  const std::uint32_t left = left_edge(a), right = right_edge(b);
  const double low = (inside_ ? p_.low : p_.value)[left], high = (inside_ ? p_.high : p_.value)[right - 1];
  const double far = std::max(std::abs(low - layer_[t].level), std::abs(high - layer_[t].level));
  return (p_.W[right] - p_.W[left]) * (far * far);
}

// forward_[k] <= loss up to a threshold in block k. `most`: no cell of a good path costs more.
void Narrowing::bound_forwards(double most) {
  forward_[0] = 0;
  for (std::size_t t = 1; t <= cells_; ++t) {
    std::size_t first = place_at_[t - 1], apart = first;  // blocks [first, apart) lie wholly before
    const std::size_t last = place_at_[t];
    for (std::size_t k = place_at_[t]; k < place_at_[t + 1]; ++k) {
      const std::uint32_t left = left_edge(place_[k]);
      while (apart < last && right_edge(place_[apart]) < left) ++apart;
      const SquaredErrorCost core{p_.W, p_.S, p_.C};
      while (first < apart &&
             core(right_edge(place_[first]), left) >
                 most + 0x1p-44 * (p_.C[left] - p_.C[right_edge(place_[first])] + std::abs(p_.C[left])))
        ++first;
      double best = scans_->bound({apart - first, &forward_[first], &q_low_[first], &q_high_[first], &w_right_[first],
                                   s_low_[k], s_high_[k], w_left_[k]});
      for (std::size_t j = apart; j < last && place_[j].first <= place_[k].first; ++j)
        if (const double m = touching(t, j, k); m >= 0) best = std::min(best, forward_[j] - m);
      forward_[k] = best + phi_low_[k];
    }
  }
}

// backward_[k] <= loss after a threshold in block k.
void Narrowing::bound_backwards(double most) {
  backward_.back() = onward_.back() = 0;
  for (std::size_t t = cells_; t-- > 0;) {
    const std::size_t begin = place_at_[t + 1], end = place_at_[t + 2];
    std::size_t after = end, apart = end;  // blocks [apart, after) lie wholly behind
    for (std::size_t k = place_at_[t + 1]; k-- > place_at_[t];) {
      const std::uint32_t right = right_edge(place_[k]);
      while (apart > begin && left_edge(place_[apart - 1]) > right) --apart;
      const SquaredErrorCost core{p_.W, p_.S, p_.C};
      while (after > apart &&
             core(right, left_edge(place_[after - 1])) >
                 most + 0x1p-44 * (p_.C[left_edge(place_[after - 1])] - p_.C[right] + std::abs(p_.C[right])))
        --after;
      double best = scans_->bound({after - apart, &onward_[apart], &s_low_[apart], &s_high_[apart], &w_left_[apart],
                                   q_low_[k], q_high_[k], w_right_[k]});
      for (std::size_t j = apart; j-- > begin && place_[j].first >= place_[k].first;)
        if (const double m = touching(t + 1, k, j); m >= 0) best = std::min(best, onward_[j] - m);
      backward_[k] = best;
      onward_[k] = best + phi_low_[k];
    }
  }
}

void Narrowing::prune(double bound) {
  next_place_.clear();
  next_place_at_.assign(1, 0);
  for (std::size_t t = 0; t <= cells_; ++t) {
    for (std::size_t k = place_at_[t]; k < place_at_[t + 1]; ++k)
      if (t == 0 || t == cells_ || !(forward_[k] + backward_[k] > bound)) next_place_.push_back(place_[k]);
    next_place_at_.push_back(static_cast<std::uint32_t>(next_place_.size()));
  }
  std::swap(place_, next_place_);
  std::swap(place_at_, next_place_at_);
}

// Halves every block twice. Where a block is cut depends on the block only, so thresholds share their blocks.
void Narrowing::split() {
  next_place_.clear();
  next_place_at_.assign(1, 0);
  const auto cut = [&](Place b) { return b.first + (b.last - b.first) / 2; };
  for (std::size_t t = 0; t <= cells_; ++t) {
    for (std::size_t k = place_at_[t]; k < place_at_[t + 1]; ++k) {
      const Place whole = place_[k];
      if (whole.first == whole.last) {
        next_place_.push_back(whole);
        continue;
      }
      for (const Place half : {Place{whole.first, cut(whole)}, Place{cut(whole) + 1, whole.last}}) {
        if (half.first == half.last) {
          next_place_.push_back(half);
          continue;
        }
        next_place_.push_back({half.first, cut(half)});
        next_place_.push_back({cut(half) + 1, half.last});
      }
    }
    next_place_at_.push_back(static_cast<std::uint32_t>(next_place_.size()));
  }
  std::swap(place_, next_place_);
  std::swap(place_at_, next_place_at_);
}

bool Narrowing::all_single() const {
  return std::ranges::all_of(place_, [](Place b) { return b.first == b.last; });
}

// Candidates: the last edges of the blocks, and the reference's thresholds.
void Narrowing::corners_of_places() {
  candidate_.assign(1, 0);
  candidate_at_.assign({0, 1});
  for (std::size_t t = 1; t < cells_; ++t) {
    const std::uint32_t mine = reference_[t];
    std::uint32_t floor = candidate_[candidate_at_[t - 1]];
    bool placed = false;
    for (std::size_t k = place_at_[t]; k < place_at_[t + 1]; ++k) {
      const std::uint32_t x = right_edge(place_[k]);
      if (!placed && x >= mine) {
        candidate_.push_back(mine);
        floor = mine;
        placed = true;
      }
      if (x > floor && x >= t && x <= p_.m - cells_ + t) candidate_.push_back(x), floor = x;
    }
    if (!placed) candidate_.push_back(mine);
    candidate_at_.push_back(static_cast<std::uint32_t>(candidate_.size()));
  }
  candidate_.push_back(static_cast<std::uint32_t>(p_.m));
  candidate_at_.push_back(static_cast<std::uint32_t>(candidate_.size()));
}

// Candidates: every edge from the first to the last alive block of each threshold.
void Narrowing::windows_of_places() {
  candidate_.assign(1, 0);
  candidate_at_.assign({0, 1});
  for (std::size_t t = 1; t < cells_; ++t) {
    const std::size_t floor = candidate_[candidate_at_[t - 1]] + std::size_t{1};
    std::size_t first = reference_[t], last = reference_[t];
    if (place_at_[t] < place_at_[t + 1]) {
      first = std::min<std::size_t>(first, left_edge(place_[place_at_[t]]));
      last = std::max<std::size_t>(last, right_edge(place_[place_at_[t + 1] - 1]));
    }
    first = std::max({first, floor, t});
    last = std::min(last, p_.m - cells_ + t);
    for (std::size_t x = first; x <= last; ++x) candidate_.push_back(static_cast<std::uint32_t>(x));
    candidate_at_.push_back(static_cast<std::uint32_t>(candidate_.size()));
  }
  candidate_.push_back(static_cast<std::uint32_t>(p_.m));
  candidate_at_.push_back(static_cast<std::uint32_t>(candidate_.size()));
}

// Prices in evaluations of one candidate (a row of the recurrence costs about 16 of them; see the bench).
double Narrowing::windows_price() const {
  double price = 0;
  for (std::size_t t = 1; t < cells_; ++t) {
    if (place_at_[t] == place_at_[t + 1]) continue;
    const double width = right_edge(place_[place_at_[t + 1] - 1]) - left_edge(place_[place_at_[t]]) + 1.0;
    price += width * (16 + std::log2(width + 1));
  }
  return price;
}

double Narrowing::stage_price() const {
  double price = 0;
  for (std::size_t t = 1; t < cells_; ++t) {
    const double now = 4.0 * (place_at_[t + 1] - place_at_[t]);
    price += now * (60 + std::min(now, 256.0));
  }
  return price;
}

// Bounds, drops and splits blocks until splitting does not pay, or (to_the_end) until every block is one position or
// there are too many to go on.
void Narrowing::narrow(bool to_the_end) {
  for (;;) {
    measure_places();
    const double bound = reference_excess() + kMargin * loss_;
    const double most = loss_ * (1 + 1e-9);
    bound_forwards(most);
    bound_backwards(most);
    prune(bound);
    if (all_single()) return;
    if (to_the_end && place_.size() > kMostPlaces) return;
    if (!to_the_end && windows_price() <= stage_price()) return;
    split();
    if (!to_the_end) {
      corners_of_places();
      if (improve()) loss_ = reference_loss();
    }
  }
}

void Narrowing::solve(const LinePoints& points, std::size_t cells, CellEnds& ends) {
  if (points.m < 2 * kBlocksPerCell * cells || cells < 2) return solve_layered(points, cells, ends);
  begin(points, cells, false);
  companded(kBlocksPerCell * cells);
  first_path(path_);
  set_reference(path_);
  loss_ = reference_loss();
  for (int round = 0; round < 3; ++round) {
    keep_corners(kBlocksPerCell + kBlocksPerCell / 2);
    if (!improve()) break;
    loss_ = reference_loss();
  }
  all_places();
  narrow(false);
  windows_of_places();
  windowed(ends);
}

std::vector<std::uint32_t> Narrowing::open_bins(const LinePoints& points, const CellEnds& best) {
  begin(points, best.size() - 1, true);
  set_reference(best);
  loss_ = reference_loss();
  companded(std::min(points.m, kBlocksPerCell * cells_));
  all_places();
  narrow(true);
  std::vector<std::uint32_t> bins;
  std::vector<bool> open(p_.m, false);
  for (std::size_t k = place_at_[1]; k < place_at_[cells_]; ++k)
    for (std::uint32_t z = place_[k].first | 1; z <= place_[k].last; z += 2) open[z >> 1] = true;
  for (std::uint32_t bin = 0; bin < p_.m; ++bin)
    if (open[bin] && p_.low[bin] < p_.high[bin]) bins.push_back(bin);
  return bins;
}

}  // namespace lmq
