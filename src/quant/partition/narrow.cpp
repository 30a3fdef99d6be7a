// Stages: which places may hold a threshold of an optimal path.
#include "narrow.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace lmq {
namespace {
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::size_t kBlocksPerCell = 4;
constexpr double kMargin = 1e-10;     // of the loss: far above rounding, far below what matters
constexpr double kNoise = 0x1p-48;    // of the energy about the centre: rounding of sums
constexpr double kMinPart = 0x1p-44;  // of all weight: a part of a block that sums can tell from nothing
constexpr std::size_t kMaxCandidates = std::size_t{1} << 20;  // about 40 bytes each
}  // namespace

double Narrowing::block_low(std::size_t k) const {
  return p_.low != nullptr ? p_.low[blocks_[k]] : p_.value[blocks_[k]];
}
double Narrowing::block_high(std::size_t k) const {
  return p_.low != nullptr ? p_.high[blocks_[k + 1] - 1] : p_.value[blocks_[k + 1] - 1];
}

// Edges and insides of the stage's blocks as points (W, S).
void Narrowing::measure_blocks() {
  const std::size_t n = blocks_.size() - 1;
  block_w_.resize(2 * n + 1), block_s_.resize(2 * n + 1);
  const double least = kMinPart * (p_.W[p_.m] - p_.W[0]);
  for (std::size_t k = 0; k <= n; ++k) {
    const double w = p_.W[blocks_[k]], sum = p_.S[blocks_[k]];
    block_w_[2 * k] = w, block_s_[2 * k] = sum;
    if (k == n) break;
    const double low = block_low(k), high = block_high(k);
    const double mass = p_.W[blocks_[k + 1]] - w, mean = (p_.S[blocks_[k + 1]] - sum) / mass;
    double part = low < high ? mass * ((high - mean) / (high - low)) : 0.5 * mass;
    part = std::max(std::min(part, mass - least), std::min(least, 0.5 * mass));
    block_w_[2 * k + 1] = w + part;
    block_s_[2 * k + 1] = sum + (block_w_[2 * k + 1] - w) * low;  // what rounding made of the part
  }
  place_w_ = block_w_.data();
  place_s_ = block_s_.data();
}

// Every threshold may lie at every edge and inside every block.
void Narrowing::all_places() {
  const auto last = static_cast<std::uint32_t>(2 * (blocks_.size() - 1));
  candidate_.assign(1, 0);
  candidate_at_.assign({0, 1});
  for (std::size_t t = 1; t < cells_; ++t) {
    for (std::uint32_t x = 1; x < last; ++x)
      if (x % 2 == 0 || block_low(x / 2) < block_high(x / 2)) candidate_.push_back(x);
    candidate_at_.push_back(static_cast<std::uint32_t>(candidate_.size()));
  }
  candidate_.push_back(last);
  candidate_at_.push_back(static_cast<std::uint32_t>(candidate_.size()));
}

// The best path of the stage as a path over edges of points. True when it was one.
bool Narrowing::edges_of_path(CellEnds& path) const {
  bool at_edges = true;
  std::uint32_t least = 0;
  for (std::size_t t = 1; t < cells_; ++t) {
    const std::size_t k = path[t] / 2;
    std::uint32_t edge = blocks_[k];
    if (path[t] % 2 == 1) {
      at_edges = false;
      const std::uint32_t end = blocks_[k + 1];
      const double part = block_w_[2 * k + 1] - block_w_[2 * k], rest = block_w_[2 * k + 2] - block_w_[2 * k + 1];
      edge = end == edge + 1 ? edge + (part > rest ? 1 : 0) : edge + (end - edge) / 2;
    }
    const auto most = static_cast<std::uint32_t>(p_.m - cells_ + t);
    least = std::min(std::max(edge, least + 1), most);
    path[t] = least;
  }
  path[cells_] = static_cast<std::uint32_t>(p_.m);
  return at_edges;
}

// Forwards, a better reference for the next stage, backwards; drops places that no optimal path goes through.
void Narrowing::look() {
  measure_blocks();
  const double least = forwards();
  trace(path_);
  if (!edges_of_path(path_)) lloyd(path_, 10);
  const double before = excess(reference_), after = excess(path_);
  const bool better = after <= before;
  best_ = std::min(before, after);
  gap_ = std::max(best_ - least, 0.0);
  backwards();
  drop(best_ + kMargin * loss_ + kNoise * (std::abs(p_.C[0]) + std::abs(p_.C[p_.m])));
  if (!better || path_ == reference_) return;
  set_reference(path_);
  loss_ = std::max(loss_ - (before - after), 0.0);
}

void Narrowing::drop(double bound) {
  std::size_t kept = 0, first = 0;
  for (std::size_t t = 0; t <= cells_; ++t) {
    const std::size_t end = candidate_at_[t + 1];
    for (std::size_t c = first; c < end; ++c)
      if (t == 0 || t == cells_ || !(forward_[c] + backward_[c] > bound)) candidate_[kept++] = candidate_[c];
    first = end;
    candidate_at_[t + 1] = static_cast<std::uint32_t>(kept);
  }
  candidate_.resize(kept);
}

// Marks the blocks that have a threshold inside and can be split. False when there are none.
bool Narrowing::open_blocks() {
  open_.assign(blocks_.size() - 1, false);
  bool any = false;
  for (const std::uint32_t x : candidate_) {
    if (x % 2 == 0) continue;
    const std::size_t k = x / 2;
    open_[k] = blocks_[k + 1] - blocks_[k] > 1;
    any |= open_[k];
  }
  return any;
}

// Where to cut a block of several points: between the middle point and the middle of its values, so that tails are cut
// where they are thin.
std::uint32_t Narrowing::cut(std::uint32_t first, std::uint32_t end) const {
  const std::uint32_t middle = first + (end - first) / 2;
  if (end - first < 4) return middle;
  const double half = 0.5 * (p_.value[first] + p_.value[end - 1]);
  const auto edge = static_cast<std::uint32_t>(std::lower_bound(p_.value + first, p_.value + end, half) - p_.value);
  return std::clamp(middle / 2 + edge / 2, first + 1, end - 1);
}

// Cuts open blocks in up to four, and gives the places of each threshold their new numbers.
void Narrowing::split() {
  new_blocks_.assign(1, 0);
  block_at_.resize(blocks_.size());
  for (std::size_t k = 0; k + 1 < blocks_.size(); ++k) {
    const std::uint32_t first = blocks_[k], end = blocks_[k + 1];
    block_at_[k] = static_cast<std::uint32_t>(new_blocks_.size() - 1);
    if (open_[k]) {
      const std::uint32_t middle = cut(first, end);
      if (middle - first > 1) new_blocks_.push_back(cut(first, middle));
      new_blocks_.push_back(middle);
      if (end - middle > 1) new_blocks_.push_back(cut(middle, end));
    }
    new_blocks_.push_back(end);
  }
  block_at_.back() = static_cast<std::uint32_t>(new_blocks_.size() - 1);
  std::swap(blocks_, new_blocks_);
  new_candidate_.clear();
  std::size_t first = 0;
  for (std::size_t t = 0; t <= cells_; ++t) {
    const std::size_t end = candidate_at_[t + 1];
    for (std::size_t c = first; c < end; ++c) {
      const std::uint32_t x = candidate_[c], from = 2 * block_at_[x / 2];
      if (x % 2 == 0) {
        new_candidate_.push_back(from);
        continue;
      }
      for (std::uint32_t y = from + 1; y < 2 * block_at_[x / 2 + 1]; ++y)
        if (y % 2 == 0 || block_low(y / 2) < block_high(y / 2)) new_candidate_.push_back(y);
    }
    first = end;
    candidate_at_[t + 1] = static_cast<std::uint32_t>(new_candidate_.size());
  }
  std::swap(candidate_, new_candidate_);
}

// Looks and splits until every place is an edge or inside one point; to an open end (closed >= 0) only until the gap is
// closed, or no longer falls because bins are too coarse. False when there are too many places.
bool Narrowing::narrow(double closed) {
  inside_ = true;
  all_places();
  for (double before = kInfinity;; before = gap_) {
    if (candidate_.size() > kMaxCandidates) return false;
    look();
    if (gap_ <= closed * loss_ || !open_blocks()) return true;
    if (closed >= 0 && gap_ > 0.9 * before) return true;
    split();
  }
}

void Narrowing::solve(const SortedPoints& points, std::size_t cells, CellEnds& ends) {
  if (points.m < 2 * kBlocksPerCell * cells || cells < 2) return solve_layered(points, cells, ends);
  if (2 * kBlocksPerCell * cells * cells > kMaxCandidates) return solve_interlaced(points, cells, ends);
  begin(points, cells);
  companded(kBlocksPerCell * cells);
  first_path(path_);
  set_reference(path_);
  loss_ = reference_loss();
  if (narrow(-1)) {
    ends = reference_;
    return;
  }
  solve_interlaced(points, cells, ends);
}

double Narrowing::bracket(const SortedPoints& bins, std::size_t cells, double closed, CellEnds& ends,
                          std::vector<std::uint32_t>& open) {
  begin(bins, cells);
  companded(std::min(bins.m, kBlocksPerCell * cells));
  first_path(path_);
  set_reference(path_);
  loss_ = reference_loss();
  const bool known = narrow(closed);
  ends = reference_;
  open.clear();
  const double part = loss_ > 0 ? gap_ / loss_ : 0.0;
  if (known && part <= closed) return part;
  std::vector<bool> is_open(p_.m, false);
  for (const std::uint32_t x : candidate_)
    for (std::uint32_t bin = blocks_[x / 2]; x % 2 == 1 && bin < blocks_[x / 2 + 1]; ++bin) is_open[bin] = true;
  for (std::uint32_t bin = 0; bin < p_.m; ++bin)
    if (is_open[bin] && p_.low[bin] < p_.high[bin]) open.push_back(bin);
  return part;
}

}  // namespace lmq
