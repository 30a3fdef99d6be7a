#include <algorithm>
#include <limits>

#include "width_search.hpp"

namespace lmq {
namespace {

constexpr std::size_t kPairs[] = {std::size_t{1} << 8, std::size_t{1} << 12, std::size_t{1} << 16};
constexpr double kRounding = 1e-9;  // part of the losses by which sums of doubles may be off

/// Of a point that may be in an optimum: its loss at the common slope above the scope's least.
struct Candidate {
  std::size_t point = 0;
  double bytes = 0, loss = 0, excess = 0;
};
struct Pair {
  double bytes = 0, loss = 0, excess = 0;
  std::uint32_t parent = 0, candidate = 0;
};
struct Step {
  std::uint32_t parent = 0, candidate = 0;
};

/// The dynamic programme under one bound.
class Programme {
 public:
  Programme(WidthTables tables, double room, double slope, const WidthChoice& known)
      : tables_(tables), room_(room), known_(known), candidates_(tables.size()) {
    double bound = -slope * room, sizes = slope * room;
    std::vector<double> least(tables.size(), std::numeric_limits<double>::infinity());
    for (std::size_t s = 0; s < tables.size(); ++s) {
      for (const WidthPoint& point : tables[s]) least[s] = std::min(least[s], point.loss + slope * point.bytes);
      bound += least[s], sizes += least[s];
    }
    gap_ = known.loss - bound + kRounding * sizes;
    for (std::size_t s = 0; s < tables.size(); ++s)
      for (std::size_t p = 0; p < tables[s].size(); ++p) {
        const WidthPoint& point = tables[s][p];
        const double excess = std::max(point.loss + slope * point.bytes - least[s], 0.0);
        if (excess <= gap_) candidates_[s].push_back({p, point.bytes, point.loss, excess});
      }
  }

  /// The least loss with at most so many pairs at a time.
  WidthChoice run(std::size_t most) {
    order_scopes();
    std::vector<Pair> pairs(1);
    std::vector<std::vector<Step>> steps;
    bool proven = true;
    double rest = 0;  // bytes the scopes to come take at least
    for (const std::size_t s : order_) rest += fewest(s);
    for (const std::size_t s : order_) {
      rest -= fewest(s);
      pairs = with_scope(pairs, s, room_ - rest);
      if (pairs.empty()) break;
      if (pairs.size() > most) proven = false, thin(pairs, most);
      auto& step = steps.emplace_back();
      for (const Pair& pair : pairs) step.push_back({pair.parent, pair.candidate});
    }
    WidthChoice best = known_;
    if (!pairs.empty()) take(pairs.size() - 1, steps, best);
    best.proven = proven;
    return best;
  }

 private:
  [[nodiscard]] double fewest(std::size_t scope) const noexcept {
    double bytes = std::numeric_limits<double>::infinity();
    for (const Candidate& candidate : candidates_[scope]) bytes = std::min(bytes, candidate.bytes);
    return bytes;
  }

  /// Those with the most at stake first: what cannot be is known early.
  void order_scopes() {
    order_.clear();
    std::vector<double> stake(candidates_.size(), 0.0);
    for (std::size_t s = 0; s < candidates_.size(); ++s) {
      order_.push_back(s);
      for (const Candidate& candidate : candidates_[s]) stake[s] = std::max(stake[s], candidate.excess);
    }
    std::ranges::stable_sort(order_, [&](std::size_t a, std::size_t b) { return stake[a] > stake[b]; });
  }

  /// All pairs with a candidate of the scope, but those that cannot be part of a better choice.
  [[nodiscard]] std::vector<Pair> with_scope(const std::vector<Pair>& pairs, std::size_t scope, double room) const {
    std::vector<Pair> all, best;
    for (std::uint32_t i = 0; i < pairs.size(); ++i)
      for (std::uint32_t c = 0; c < candidates_[scope].size(); ++c) {
        const Candidate& candidate = candidates_[scope][c];
        const Pair pair{pairs[i].bytes + candidate.bytes, pairs[i].loss + candidate.loss,
                        pairs[i].excess + candidate.excess, i, c};
        if (pair.bytes <= room && pair.excess <= gap_) all.push_back(pair);
      }
    std::ranges::stable_sort(
        all, [](const Pair& a, const Pair& b) { return a.bytes != b.bytes ? a.bytes < b.bytes : a.loss < b.loss; });
    for (const Pair& pair : all)
      if (best.empty() || pair.loss < best.back().loss) best.push_back(pair);
    return best;
  }

  /// The least excess of each of `most` slices of bytes.
  static void thin(std::vector<Pair>& pairs, std::size_t most) {
    const double low = pairs.front().bytes, width = (pairs.back().bytes - low) / static_cast<double>(most);
    std::vector<Pair> kept;
    double edge = low + width;
    for (const Pair& pair : pairs) {
      const bool next = kept.empty() || pair.bytes >= edge;
      while (pair.bytes >= edge && width > 0) edge += width;
      if (next)
        kept.push_back(pair);
      else if (pair.excess < kept.back().excess)
        kept.back() = pair;
    }
    pairs = std::move(kept);
  }

  /// The choice that ends in a pair, where it is better than what is known.
  void take(std::size_t at, const std::vector<std::vector<Step>>& steps, WidthChoice& best) const {
    std::vector<std::size_t> points(tables_.size());
    for (std::size_t i = steps.size(); i-- > 0;) {
      const Step& step = steps[i][at];
      points[order_[i]] = candidates_[order_[i]][step.candidate].point;
      at = step.parent;
    }
    WidthChoice found = choice_of(tables_, std::move(points));
    if (found.loss < best.loss && found.bytes <= room_) best = std::move(found);
  }

  WidthTables tables_;
  double room_, gap_ = 0;
  const WidthChoice& known_;
  std::vector<std::vector<Candidate>> candidates_;
  std::vector<std::size_t> order_;
};

}  // namespace

WidthChoice choose_exactly(WidthTables tables, double room, const SlopeChoice& known) {
  WidthChoice best = known.choice;
  best.proven = known.stopped_at == 0;  // every scope has its least loss
  for (const std::size_t pairs : kPairs) {
    if (best.proven) break;
    const WidthChoice before = best;  // a better choice makes the next bound tighter
    best = Programme(tables, room, known.stopped_at, before).run(pairs);
  }
  return best;
}

}  // namespace lmq
