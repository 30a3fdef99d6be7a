#pragma once
#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace lmq {

/// Price of the cell of points i+1 .. j (0 <= i < j <= m). The engines below want a Monge cost:
/// cost(a,c) + cost(b,d) <= cost(a,d) + cost(b,c) for a <= b <= c <= d. Then the best loss f(K) is convex in K.
template <class T>
concept CellCost = requires(const T& cost, std::size_t i) {
  { cost(i, i) } -> std::convertible_to<double>;
};

/// Ends of the cells of a partition: 0 = end[0] < end[1] < ... < end[K] = m.
using CellEnds = std::vector<std::uint32_t>;

template <CellCost Cost>
[[nodiscard]] double partition_loss(const Cost& cost, std::span<const std::uint32_t> ends) {
  double sum = 0;
  for (std::size_t t = 1; t < ends.size(); ++t) sum += cost(ends[t - 1], ends[t]);
  return sum;
}

/// E1: the partition of m points that minimises sum of cost + penalty * (number of cells), any number of cells.
/// Cost O(m log m). Source: concave least-weight subsequence with a queue of candidates (Galil & Park 1992, section 3).
template <CellCost Cost>
class PenalisedPartition {
 public:
  /// Among equal predecessors the smaller index wins. The ends are valid until the next call.
  const CellEnds& solve(const Cost& cost, std::size_t m, double penalty) {
    f_.assign(m + 1, 0.0);
    back_.assign(m + 1, 0);
    queue_.clear();
    queue_.push_back({0, 1});
    std::size_t head = 0;
    for (std::size_t j = 1; j <= m; ++j) {
      while (head + 1 < queue_.size() && queue_[head + 1].start <= j) ++head;
      const std::size_t i = queue_[head].candidate;
      f_[j] = f_[i] + cost(i, j) + penalty;
      back_[j] = static_cast<std::uint32_t>(i);
      if (j < m) insert(cost, j, m, head);
    }
    ends_.clear();
    for (std::size_t j = m; j > 0; j = back_[j]) ends_.push_back(static_cast<std::uint32_t>(j));
    ends_.push_back(0);
    std::ranges::reverse(ends_);
    return ends_;
  }

 private:
  struct Entry {
    std::size_t candidate, start;  // candidate is best from `start` on, until the next entry's start
  };

  bool beats(const Cost& cost, std::size_t j, std::size_t other, std::size_t at) const {
    return f_[j] + cost(j, at) < f_[other] + cost(other, at);
  }

  // Drops the candidates that j makes useless, then finds where j takes over from the last one left.
  void insert(const Cost& cost, std::size_t j, std::size_t m, std::size_t head) {
    for (;;) {
      const Entry last = queue_.back();
      const std::size_t from = std::max(last.start, j + 1);
      if (!beats(cost, j, last.candidate, from)) {
        if (const std::size_t start = takeover(cost, j, last.candidate, from, m); start <= m)
          queue_.push_back({j, start});
        return;
      }
      if (queue_.size() == head + 1) {  // j is best for everything to come
        queue_.back() = {j, j + 1};
        return;
      }
      queue_.pop_back();
    }
  }

  // The first end after `from`, where j does not beat `other`, at which it does; m + 1 if none. It is near as a rule.
  std::size_t takeover(const Cost& cost, std::size_t j, std::size_t other, std::size_t from, std::size_t m) const {
    std::size_t worse = from, better = m + 1;
    for (std::size_t step = 1; worse < m; step *= 2) {
      const std::size_t probe = std::min(worse + step, m);
      if (beats(cost, j, other, probe)) {
        better = probe;
        break;
      }
      worse = probe;
    }
    while (better <= m && better - worse > 1) {
      const std::size_t middle = worse + (better - worse) / 2;
      (beats(cost, j, other, middle) ? better : worse) = middle;
    }
    return better;
  }

  std::vector<double> f_;
  std::vector<std::uint32_t> back_;
  std::vector<Entry> queue_;
  CellEnds ends_;
};

/// A partition into exactly `cells` cells made of the head of one optimal path and the tail of another (few < cells <
/// many): both are optimal for the same penalty, the paths cross, and a Monge cost makes the crossing free.
[[nodiscard]] CellEnds splice_paths(const CellEnds& few, const CellEnds& many, std::size_t cells);

/// E2: exactly K cells (1 <= K <= m) by a search for the penalty whose best partition has K cells; the lower hull of f
/// is all of f, so where no penalty gives K (ties) two paths are spliced. `penalty` > 0 is a first guess, 0: none. Cost
/// about 5 to 9 runs of E1, whatever K. Source: Aggarwal, Schieber & Tokuyama 1994.
template <CellCost Cost>
[[nodiscard]] CellEnds lagrangian_partition(const Cost& cost, std::size_t m, std::size_t cells, double penalty = 0) {
  CellEnds few{0, static_cast<std::uint32_t>(m)}, many(m + 1);
  for (std::size_t j = 0; j <= m; ++j) many[j] = static_cast<std::uint32_t>(j);
  if (cells <= 1) return few;
  if (cells >= m) return many;
  double few_loss = partition_loss(cost, few), many_loss = partition_loss(cost, many);
  PenalisedPartition<Cost> search;
  for (int run = 0;; ++run) {
    const auto low = static_cast<double>(few.size() - 1), high = static_cast<double>(many.size() - 1);
    const double chord = (few_loss - many_loss) / (high - low);
    // The chord always ends, but slowly from far away; between chords, the law loss ~ cells^-2, slope ~ cells^-3.
    double lambda = chord;
    if (penalty > 0 && run < 12 && run % 4 != 3 && high - low > 8) lambda = penalty;
    const CellEnds& found = search.solve(cost, m, lambda);
    const std::size_t count = found.size() - 1;
    if (count == cells) return found;
    // A little beyond: the next end shall lie on the other side.
    const double aim = static_cast<double>(cells) + (count < cells ? 0.5 : -0.5);
    const double ratio = static_cast<double>(count) / aim;
    penalty = lambda * ratio * ratio * ratio;
    if (count <= few.size() - 1 || count >= many.size() - 1) {
      if (lambda == chord) return splice_paths(few, many, cells);  // both ends lie on one edge of the hull
      continue;
    }
    const double loss = partition_loss(cost, found);
    if (lambda == chord) {
      const double now = loss + lambda * static_cast<double>(count), before = few_loss + lambda * low;
      if (now >= before - 1e-13 * std::abs(before)) return splice_paths(few, many, cells);
    }
    if (count < cells) {
      few = found;
      few_loss = loss;
    } else {
      many = found;
      many_loss = loss;
    }
  }
}

/// E3: all K = 1 .. Kmax at once, layer by layer, divide and conquer on the monotone arg-min.
/// Cost O(Kmax m log m) time, 4 Kmax m bytes.
class LayeredPartition {
 public:
  template <CellCost Cost>
  LayeredPartition(const Cost& cost, std::size_t m, std::size_t most_cells) : m_(m) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    most_cells = std::min(most_cells, m);
    losses_.assign(most_cells + 1, kInfinity);
    if (m == 0) return;
    std::vector<double> before(m + 1, kInfinity), now(m + 1, kInfinity);
    back_.assign(most_cells * (m + 1), 0);
    for (std::size_t j = 1; j <= m; ++j) before[j] = cost(0, j);
    losses_[1] = before[m];
    for (std::size_t k = 2; k <= most_cells; ++k) {
      std::uint32_t* back = back_.data() + (k - 1) * (m + 1);
      std::ranges::fill(now, kInfinity);
      layer(cost, before, now, back, {k, m, k - 1, m - 1});
      losses_[k] = now[m];
      std::swap(before, now);
    }
  }
  /// [k] best loss of exactly k cells, k = 1 .. min(Kmax, m); [0] = infinity.
  [[nodiscard]] std::span<const double> losses() const noexcept { return losses_; }
  [[nodiscard]] CellEnds ends(std::size_t cells) const;

 private:
  struct Block {
    std::size_t row_first, row_last, first, last;  // all inclusive
  };
  template <CellCost Cost>
  static void layer(const Cost& cost, const std::vector<double>& before, std::vector<double>& now, std::uint32_t* back,
                    Block whole) {
    std::vector<Block> stack{whole};
    while (!stack.empty()) {
      const Block b = stack.back();
      stack.pop_back();
      if (b.row_first > b.row_last) continue;
      const std::size_t j = b.row_first + (b.row_last - b.row_first) / 2;
      double best = std::numeric_limits<double>::infinity();
      std::size_t at = b.first;
      for (std::size_t i = b.first, end = std::min(b.last, j - 1); i <= end; ++i) {
        const double value = before[i] + cost(i, j);
        if (value < best) best = value, at = i;
      }
      now[j] = best;
      back[j] = static_cast<std::uint32_t>(at);
      if (j < b.row_last) stack.push_back({j + 1, b.row_last, at, b.last});
      if (j > b.row_first) stack.push_back({b.row_first, j - 1, b.first, at});
    }
  }

  std::size_t m_;
  std::vector<double> losses_;
  std::vector<std::uint32_t> back_;  // [cells][m + 1] predecessor of the last end
};

/// Sum of weight * (value - mean of the cell)^2 over a cell, from prefix sums of values about a centre.
/// Rounding: about 2^-53 of the prefix sums at i and j, clamped at 0.
struct SquaredErrorCost {
  const double* weight;  ///< [m+1] prefix sums of the weights
  const double* first;   ///< [m+1] of weight * value
  const double* second;  ///< [m+1] of weight * value^2
  double operator()(std::size_t i, std::size_t j) const noexcept {
    const double a = weight[j] - weight[i], b = first[j] - first[i], c = second[j] - second[i];
    const double loss = c - b * b / a;
    return j > i + 1 && loss > 0 ? loss : 0.0;
  }
};

}  // namespace lmq
