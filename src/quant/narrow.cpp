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
constexpr std::size_t kManyPlaces = std::size_t{1} << 18;  // to be halved once; 150 bytes each
constexpr std::size_t kMostPlaces = 2 * kManyPlaces;
}  // namespace

// Adds a block without the insides of single values at its ends: no threshold needs to lie there.
void Narrowing::add_place(std::vector<Place>& places, Place block) const {
  const auto idle = [&](std::uint32_t position) {
    return position % 2 == 1 && !(p_.low[position >> 1] < p_.high[position >> 1]);
  };
  if (inside_) {
    while (block.first <= block.last && idle(block.first)) ++block.first;
    while (block.first <= block.last && idle(block.last)) --block.last;
  }
  if (block.first <= block.last) places.push_back(block);
}

// Every threshold may lie in every block.
void Narrowing::all_places() {
  place_.assign(1, {0, 0});
  place_at_.assign({0, 1});
  for (std::size_t t = 1; t < cells_; ++t) {
    for (std::size_t k = 1; k < blocks_.size(); ++k) {
      const std::uint32_t before = blocks_[k - 1], end = blocks_[k] - (k + 1 == blocks_.size() ? 1 : 0);
      add_place(place_,
                inside_ ? Place{2 * before + 1, 2 * blocks_[k] - (end < blocks_[k] ? 1 : 0)} : Place{before + 1, end});
    }
    place_at_.push_back(static_cast<std::uint32_t>(place_.size()));
  }
  const auto end = static_cast<std::uint32_t>(inside_ ? 2 * p_.m : p_.m);
  place_.push_back({end, end});
  place_at_.push_back(static_cast<std::uint32_t>(place_.size()));
}

BlockArrays Narrowing::arrays() const {
  return {forward_.data(), onward_.data(), w_first_.data(), w_last_.data(), level_of_.data(),
          mean_.data(),    low_.data(),    ratio_.data(),   s_left_.data(), s_right_.data(),
          lower_.data(),   dip_.data(),    rise_.data(),    d_left_.data(), d_right_.data()};
}

// Of differences of C between two edges.
double Narrowing::rounding(std::size_t a, std::size_t b) const {
  return 0x1p-44 * (std::abs(p_.C[a]) + std::abs(p_.C[b]));
}

// level: c_R. See BlockArrays for the rest.
void Narrowing::measure_place(std::size_t t, std::size_t k, double level) {
  const std::uint32_t first = left_edge(place_[k]), last = right_edge(place_[k]), from = reference_[t];
  const double mass = p_.W[last] - p_.W[first];
  double low = 0, high = 0, mean = 0, ratio = 0;
  if (first < last) {
    low = inside_ ? p_.low[first] : p_.value[first];
    high = inside_ ? p_.high[last - 1] : p_.value[last - 1];
    mean = last == first + 1 ? p_.value[first] : std::clamp((p_.S[last] - p_.S[first]) / mass, low, high);
    ratio = low < high ? (high - mean) / (high - low) : 0;
  }
  w_first_[k] = p_.W[first];
  w_last_[k] = p_.W[last];
  level_of_[k] = level;
  mean_[k] = mean;
  low_[k] = low;
  ratio_[k] = ratio;
  phi_[k] = t > 0 && t < cells_ ? phi(t, first) : 0;
  const double noise = rounding(first, from);
  if (t < cells_) {
    s_left_[k] = s(t + 1, first, from);
    d_left_[k] = squares(layer_[t + 1].level, first, from) - noise;
  }
  if (t == 0) return;
  s_right_[k] = s(t, first, from) + layer_[t].residual;
  lower_[k] = layer_[t].level - level;
  const double short_of = std::max({level - mean, (level - low) * ratio, 0.0});
  dip_[k] = -mass * short_of;
  rise_[k] = mass * (short_of - (level - mean));
  const double far = std::max(std::abs(low - level), std::abs(high - level));
  d_right_[k] = squares(layer_[t].level, first, from) + squares(layer_[t].level, from, reference_[t - 1]) + noise +
                mass * (far * far);
}

// Numbers of every block. c_R is the level of the cell before the block's last edge on the best path there among the
// candidates of the last recurrence.
void Narrowing::measure_places() {
  for (auto* array : {&forward_, &backward_, &onward_, &phi_, &w_first_, &w_last_, &level_of_, &mean_, &low_, &ratio_,
                      &s_left_, &s_right_, &lower_, &dip_, &rise_, &d_left_, &d_right_})
    array->resize(place_.size());
  for (std::size_t t = 0; t <= cells_; ++t) {
    std::size_t c = candidate_at_[t];
    for (std::size_t k = place_at_[t]; k < place_at_[t + 1]; ++k) {
      const std::uint32_t edge = right_edge(place_[k]);
      while (c + 1 < candidate_at_[t + 1] && candidate_[c] < edge) ++c;
      double level = layer_[t].level;
      if (t > 0 && t < cells_ && candidate_[c] != edge) {
        level = p_.value[edge - 1];  // so many cells do not end there: they would be tiny
      } else if (t > 0 && t < cells_) {
        const std::uint32_t x = candidate_[c], a = candidate_[candidate_at_[t - 1] + back_[c]];
        level = (p_.S[x] - p_.S[a]) / (p_.W[x] - p_.W[a]);
      }
      measure_place(t, k, level);
    }
  }
}

// forward_[k] <= loss up to a threshold in block k. No cell of a good path costs more than `most`: cells that do, even
// without their blocks, are left out.
void Narrowing::bound_forwards(double most) {
  const BlockArrays blocks = arrays();
  const SquaredErrorCost core{p_.W, p_.S, p_.C};
  pairs_ = 0;
  forward_[0] = 0;
  for (std::size_t t = 1; t <= cells_; ++t) {
    std::size_t first = place_at_[t - 1], last = first;
    const std::size_t end = place_at_[t];
    for (std::size_t k = end; k < place_at_[t + 1]; ++k) {
      const std::uint32_t left = left_edge(place_[k]);
      while (last < end && (place_[last].first < place_[k].first || (place_[last] == place_[k] && wide(place_[k]))))
        ++last;
      while (first < last && right_edge(place_[first]) < left &&
             core(right_edge(place_[first]), left) > most + rounding(left, right_edge(place_[first])))
        ++first;
      forward_[k] = scans_->bound_before(blocks, first, last, k) + phi_[k];
      pairs_ += static_cast<double>(last - first);
    }
  }
}

// backward_[k] <= loss behind a threshold in block k.
void Narrowing::bound_backwards(double most) {
  const BlockArrays blocks = arrays();
  const SquaredErrorCost core{p_.W, p_.S, p_.C};
  backward_.back() = onward_.back() = 0;
  for (std::size_t t = cells_; t-- > 0;) {
    const std::size_t begin = place_at_[t + 1];
    std::size_t last = place_at_[t + 2], first = last;
    for (std::size_t k = begin; k-- > place_at_[t];) {
      const std::uint32_t right = right_edge(place_[k]);
      while (first > begin &&
             (place_[first - 1].first > place_[k].first || (place_[first - 1] == place_[k] && wide(place_[k]))))
        --first;
      while (last > first && left_edge(place_[last - 1]) > right &&
             core(right, left_edge(place_[last - 1])) > most + rounding(right, left_edge(place_[last - 1])))
        --last;
      backward_[k] = scans_->bound_behind(blocks, k, first, last);
      onward_[k] = backward_[k] + phi_[k];
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

// Where to cut a block of several places: between the middle place and the middle of its values, so that tails are cut
// where they are thin.
std::uint32_t Narrowing::cut(Place b) const {
  const std::uint32_t middle = b.first + (b.last - b.first) / 2;
  const std::uint32_t left = left_edge(b), right = right_edge(b);
  if (right - left < 4) return middle;
  const double half = 0.5 * (p_.value[left] + p_.value[right - 1]);
  const auto edge = static_cast<std::uint32_t>(std::lower_bound(p_.value + left, p_.value + right, half) - p_.value);
  const std::uint32_t place = inside_ ? 2 * edge : edge;
  return std::clamp((middle & ~1u) / 2 + place / 2, b.first, b.last - 1);
}

// Halves every block, twice when they are not too many. Where a block is cut depends on the block only, so thresholds
// share their blocks.
void Narrowing::split() {
  next_place_.clear();
  next_place_at_.assign(1, 0);
  const bool twice = place_.size() <= kManyPlaces;
  const auto halve = [&](Place b, auto&& take) {
    if (b.first == b.last) return take(b);
    const std::uint32_t middle = cut(b);
    take(Place{b.first, middle});
    take(Place{middle + 1, b.last});
  };
  for (std::size_t t = 0; t <= cells_; ++t) {
    for (std::size_t k = place_at_[t]; k < place_at_[t + 1]; ++k)
      halve(place_[k], [&](Place half) {
        if (twice)
          halve(half, [&](Place part) { add_place(next_place_, part); });
        else
          add_place(next_place_, half);
      });
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
// it does not pay either.
void Narrowing::narrow(bool to_the_end) {
  for (int stuck = 0;;) {
    corners_of_places();
    improve();
    measure_places();
    const double bound = reference_excess() + kMargin * loss_;
    const double most = loss_ * (1 + 1e-9);
    bound_forwards(most);
    bound_backwards(most);
    const std::size_t before = place_.size();
    prune(bound);
    if (all_single()) return;
    // Bins too coarse for the bound are better measured than cut up.
    const double left = static_cast<double>(place_.size()) / static_cast<double>(before);
    stuck = left > 0.9 ? stuck + 1 : 0;
    const double next = pairs_ * left * left * (place_.size() <= kManyPlaces ? 16 : 4);
    if (to_the_end && (place_.size() > kMostPlaces || next > most_pairs_ || stuck == 2)) return;
    if (!to_the_end && windows_price() <= stage_price()) return;
    split();
  }
}

void Narrowing::solve(const LinePoints& points, std::size_t cells, CellEnds& ends) {
  if (points.m < 2 * kBlocksPerCell * cells || cells < 2) return solve_layered(points, cells, ends);
  begin(points, cells, false);
  companded(kBlocksPerCell * cells);
  first_path(path_);
  set_reference(path_);
  loss_ = reference_loss();
  all_places();
  narrow(false);
  windows_of_places();
  windowed(ends);
}

std::vector<std::uint32_t> Narrowing::open_bins(const LinePoints& points, const CellEnds& best, double effort) {
  most_pairs_ = effort;
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
