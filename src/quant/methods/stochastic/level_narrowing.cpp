#include "level_narrowing.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace lmq {
namespace {
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kMargin = 1e-10;       // of the cost: blocks this close to it stay
constexpr double kExact = 1e-11;        // of the cost: rounding that an optimum may have
constexpr double kCoarse = 1e-9;        // of the cost: rounding while blocks are dropped (it widens the margin)
constexpr double kBlind = 1e-4;         // of the cost: rounding far from the path that cannot hide a better one
constexpr std::size_t kPerLevel = 8;    // blocks per level at the start
constexpr std::uint32_t kParts = 4;     // of a block that is split
constexpr std::size_t kFewEdges = 512;  // so few, or so few per level, are not worth narrowing
constexpr std::size_t kFewPerLevel = 24;
}  // namespace

// The quickest arithmetic whose rounding stays below `most` of the cost.
void LevelNarrowing::choose_arithmetic(double most) {
  for (const auto arithmetic : {Arithmetic::about_mean, Arithmetic::about_path, Arithmetic::precise}) {
    arithmetic_ = arithmetic;
    if (arithmetic == Arithmetic::about_mean && rounding() > most * cost_) continue;
    coordinates();
    if (rounding() <= most * cost_) return;
  }
}

void LevelNarrowing::coordinates() {
  if (arithmetic_ == Arithmetic::precise) return;
  const bool about_mean = arithmetic_ == Arithmetic::about_mean;
  for (std::size_t t = 0; t < levels_; ++t) {
    Layer& layer = layer_[t];
    const std::size_t n = layer.node.size();
    layer.x.resize(n), layer.P.resize(n), layer.H.resize(n);
    if (!about_mean) layer.next_x.resize(n), layer.next_P.resize(n), layer.next_H.resize(n);
    for (std::size_t k = 0; k < n; ++k) {
      const auto here = about_mean ? line_->at(layer.node[k]) : line_->at(layer.node[k], path_[t > 0 ? t - 1 : 0]);
      layer.x[k] = here.x, layer.P[k] = here.P, layer.H[k] = here.H;
      if (about_mean) continue;
      const auto next = line_->at(layer.node[k], path_[t]);
      layer.next_x[k] = next.x, layer.next_P[k] = next.P, layer.next_H[k] = next.H;
    }
  }
}

// How far rounding may take a bound.
double LevelNarrowing::rounding() const {
  if (arithmetic_ == Arithmetic::about_mean) return line_->noise() * static_cast<double>(levels_);
  if (arithmetic_ == Arithmetic::precise) return cost_ * 0x1p-50 * static_cast<double>(levels_);
  double sum = 0;
  for (std::size_t t = 1; t < levels_; ++t) {
    const Layer &row = layer_[t], &column = layer_[t - 1];
    double most = 0;
    for (const std::size_t k : {std::size_t{0}, row.node.size() - 1})
      most = std::max(most, std::abs(row.H[k]) + std::abs(row.x[k] * row.P[k]));
    for (const std::size_t k : {std::size_t{0}, column.node.size() - 1})
      most = std::max(most, std::abs(column.next_H[k]) + std::abs(column.next_x[k] * column.next_P[k]));
    sum += most;
  }
  return sum * 0x1p-51;
}

// b - a of a block at level t is at most the distance of the farthest blocks that one cell of a path no dearer than the
// best can join to it.
void LevelNarrowing::slacks() {
  const double most = cost_ * (1 + kMargin) + rounding();
  for (std::size_t t = 1; t + 1 < levels_; ++t) {
    Layer& layer = layer_[t];
    const auto &left = layer_[t - 1].alive, &right = layer_[t + 1].alive;
    layer.slack.resize(layer.alive.size());
    layer.node_slack.assign(layer.node.size(), 0.0);
    for (std::size_t k = 0, first = 0, last = 0; k < layer.alive.size(); ++k) {
      const Interval& one = layer.alive[k];
      if (!(one.slope > 0)) {
        layer.slack[k] = 0;
        continue;
      }
      while (first + 1 < left.size() && left[first].last < one.first && line_->cost(left[first].last, one.first) > most)
        ++first;
      while (last + 1 < right.size() &&
             (right[last + 1].first <= one.last || line_->cost(one.last, right[last + 1].first) <= most))
        ++last;
      const double a = line_->x(std::min(left[first].first, one.first));
      const double b = line_->x(std::max(right[last].last, one.last));
      layer.slack[k] = (b - a) * one.slope;
      for (const std::size_t node : {std::size_t{layer.before[k]}, std::size_t{layer.before[k]} + 1})
        layer.node_slack[node] = std::max(layer.node_slack[node], layer.slack[k]);
    }
  }
  layer_[0].node_slack.assign(1, 0.0);
  layer_[levels_ - 1].node_slack.assign(1, 0.0);
}

namespace {
/// Divide and conquer on a monotone arg-min: to[r] is the least from(k) + line.cost between the edges column(k) and
/// row(r) over the columns 0..m-1 before it (forward; else behind it), argument[r] its k.
// More than 5 parameters: three are functions that say where rows, columns and costs come from.
template <class Column, class Row, class From>
void monotone_minima(const LevelSums& line, bool forward, std::size_t m, const Column& column, const Row& row,
                     const From& from, std::span<double> to, std::span<std::uint32_t> argument) {
  std::ranges::fill(to, kInfinity);
  const auto divide = [&](const auto& self, std::size_t first_row, std::size_t last_row, std::size_t first,
                          std::size_t last) -> void {  // [first_row, last_row), first..last
    if (first_row >= last_row) return;
    const std::size_t r = first_row + (last_row - first_row) / 2;
    std::size_t best = forward ? first : last;
    for (std::size_t k = first; k <= last; ++k) {
      if (forward ? column(k) > row(r) : column(k) < row(r)) continue;
      const double value = from(k) + (forward ? line.cost(column(k), row(r)) : line.cost(row(r), column(k)));
      if (value < to[r]) to[r] = value, best = k;
    }
    if (!argument.empty()) argument[r] = static_cast<std::uint32_t>(best);
    self(self, first_row, r, first, best);
    self(self, r + 1, last_row, best, last);
  };
  divide(divide, 0, to.size(), 0, m - 1);
}
}  // namespace

// forward: row.forward and row.argument from column.forward; else row.backward from column.backward.
void LevelNarrowing::precise_layer(const Layer& column, bool forward, Layer& row) {
  const auto& from = forward ? column.forward : column.backward;
  auto& to = forward ? row.forward : row.backward;
  to.resize(row.node.size());
  if (forward) row.argument.resize(row.node.size());
  monotone_minima(
      *line_, forward, column.node.size(), [&](std::size_t k) { return std::size_t{column.node[k]}; },
      [&](std::size_t r) { return std::size_t{row.node[r]}; },
      [&](std::size_t k) { return from[k] - column.node_slack[k]; }, to,
      forward ? std::span(row.argument) : std::span<std::uint32_t>());
}

void LevelNarrowing::forwards() {
  layer_[0].forward.assign(1, 0.0);
  const LevelScan scan = level_scan();
  for (std::size_t t = 1; t < levels_; ++t) {
    Layer &row = layer_[t], &column = layer_[t - 1];
    if (arithmetic_ == Arithmetic::precise) {
      precise_layer(column, true, row);
      continue;
    }
    const bool about_mean = arithmetic_ == Arithmetic::about_mean;
    const auto &x = about_mean ? column.x : column.next_x, &P = about_mean ? column.P : column.next_P,
               &H = about_mean ? column.H : column.next_H;
    const std::size_t n = row.node.size(), m = column.node.size();
    base_.resize(m), row.forward.resize(n), row.argument.resize(n);
    for (std::size_t k = 0; k < m; ++k) base_[k] = column.forward[k] - column.node_slack[k] - H[k];
    scan({m, base_.data(), P.data(), x.data(), column.place.data(), n, row.x.data(), row.P.data(), row.place.data(),
          row.forward.data(), row.argument.data()});
    for (std::size_t k = 0; k < n; ++k) row.forward[k] += row.H[k];
  }
  bound_ = layer_[levels_ - 1].forward[0];
}

// The same from the other end: places count backwards.
void LevelNarrowing::backwards() {
  layer_[levels_ - 1].backward.assign(1, 0.0);
  const LevelScan scan = level_scan();
  for (std::size_t t = levels_ - 1; t-- > 1;) {
    Layer &row = layer_[t], &column = layer_[t + 1];
    if (arithmetic_ == Arithmetic::precise) {
      precise_layer(column, false, row);
      continue;
    }
    const bool about_mean = arithmetic_ == Arithmetic::about_mean;
    const auto &x = about_mean ? row.x : row.next_x, &P = about_mean ? row.P : row.next_P,
               &H = about_mean ? row.H : row.next_H;
    const std::size_t n = row.node.size(), m = column.node.size();
    auto& [u, v, place, row_u, row_v, row_place] = reversed_;
    base_.resize(m), u.resize(m), v.resize(m), place.resize(m);
    for (std::size_t k = 0, from = m - 1; k < m; ++k, --from) {
      base_[k] = column.backward[from] - column.node_slack[from] + column.H[from];
      u[k] = column.x[from], v[k] = column.P[from], place[k] = -column.place[from];
    }
    row_u.resize(n), row_v.resize(n), row_place.resize(n), value_.resize(n), argument_.resize(n);
    for (std::size_t k = 0, from = n - 1; k < n; ++k, --from)
      row_u[k] = P[from], row_v[k] = x[from], row_place[k] = -row.place[from];
    scan({m, base_.data(), u.data(), v.data(), place.data(), n, row_u.data(), row_v.data(), row_place.data(),
          value_.data(), argument_.data()});
    row.backward.resize(n);
    for (std::size_t k = 0; k < n; ++k) row.backward[k] = value_[n - 1 - k] - H[k];
  }
}

void LevelNarrowing::trace() {
  found_.resize(levels_);
  for (std::size_t t = levels_, k = 0; t-- > 0;) {
    found_[t] = layer_[t].node[k];
    if (t > 0) k = layer_[t].argument[k];
  }
}

// Coordinate descent from the best path.
void LevelNarrowing::improve() {
  for (int sweep = 0; sweep < 4; ++sweep) {
    bool moved = false;
    for (std::size_t t = 1; t + 1 < levels_; ++t) {
      if (path_[t - 1] >= path_[t + 1]) continue;
      const auto m = static_cast<std::uint32_t>(line_->middle(path_[t - 1], path_[t + 1]));
      moved |= m != path_[t];
      path_[t] = m;
    }
    if (!moved) break;
  }
  cost_ = line_->cost_of(path_);
}

void LevelNarrowing::prune() {
  const double most = cost_ * (1 + kMargin) + rounding();
  for (std::size_t t = 1; t + 1 < levels_; ++t) {
    Layer& layer = layer_[t];
    const auto through = [&](std::size_t k) { return layer.forward[k] + layer.backward[k]; };
    std::vector<Interval> alive;
    for (std::size_t k = 0; k < layer.alive.size(); ++k) {
      const std::size_t node = layer.before[k];
      const double least =
          layer.alive[k].first == layer.alive[k].last ? through(node) : std::min(through(node), through(node + 1));
      if (least - layer.slack[k] <= most) alive.push_back(layer.alive[k]);
    }
    if (!alive.empty()) fill(layer, std::move(alive));  // empty only where rounding fooled us
  }
}

// Cuts what can be cut; false when nothing can.
bool LevelNarrowing::split() {
  bool any = false;
  for (std::size_t t = 1; t + 1 < levels_; ++t) {
    Layer& layer = layer_[t];
    std::vector<Interval> parts;
    for (const Interval& one : layer.alive) {
      const std::uint32_t width = one.last - one.first;
      if (width <= 1 || !(one.slope > 0)) {
        parts.push_back(one);
        continue;
      }
      any = true;
      const std::uint32_t pieces = std::min(width, kParts);
      for (std::uint32_t i = 0; i < pieces; ++i)
        parts.push_back(interval(one.first + static_cast<std::uint32_t>(std::uint64_t{width} * i / pieces),
                                 one.first + static_cast<std::uint32_t>(std::uint64_t{width} * (i + 1) / pieces)));
    }
    if (any) fill(layer, std::move(parts));
  }
  return any;
}

// No block has an inside: the dynamic programme was exact.
bool LevelNarrowing::certain() const {
  for (const Layer& layer : layer_)
    for (const Interval& one : layer.alive)
      if (one.slope > 0) return false;
  return true;
}

std::vector<std::uint32_t> LevelNarrowing::open_bins() const {
  std::vector<std::uint32_t> bins;
  for (std::size_t t = 1; t + 1 < levels_; ++t)
    for (const Interval& one : layer_[t].alive)
      for (std::uint32_t e = one.first; e < one.last; ++e)
        if (one.slope > 0 && line_->bin_after(e) >= 0) bins.push_back(static_cast<std::uint32_t>(line_->bin_after(e)));
  std::ranges::sort(bins);
  bins.erase(std::unique(bins.begin(), bins.end()), bins.end());
  return bins;
}

// The dynamic programme over all edges, without slacks: one row of numbers serves all levels, only the arguments of
// each are kept. Leaves found_ and bound_; gives how far rounding may take that.
double LevelNarrowing::all_edges() {
  const std::size_t n = line_->edges();
  auto& [x, P, H, place, forward, spare] = reversed_;
  for (auto* row : {&x, &P, &H, &place, &spare}) row->resize(n);
  value_.resize(n), base_.resize(n), argument_.resize((levels_ - 2) * n + 1);
  std::iota(place.begin(), place.end(), 0.0);
  forward.assign(n, 0.0);
  const LevelScan scan = level_scan();
  double far = 0;
  for (std::size_t t = 1; t < levels_; ++t) {
    const std::size_t m = t == 1 ? 1 : n, first = t + 1 == levels_ ? n - 1 : 0, rows = n - first;
    const auto argument = std::span(argument_).subspan((t - 1) * n, rows);
    const auto values = std::span(value_).first(rows);
    if (arithmetic_ == Arithmetic::precise) {
      monotone_minima(
          *line_, true, m, [](std::size_t k) { return k; }, [&](std::size_t r) { return first + r; },
          [&](std::size_t k) { return forward[k]; }, values, argument);
    } else {
      if (t == 1 || arithmetic_ == Arithmetic::about_path)
        for (std::size_t e = 0; e < n; ++e) {
          const auto here = arithmetic_ == Arithmetic::about_mean ? line_->at(e) : line_->at(e, path_[t - 1]);
          x[e] = here.x, P[e] = here.P, H[e] = here.H;
        }
      const auto size = [&](std::size_t e) { return std::abs(H[e]) + std::abs(x[e] * P[e]); };
      far += std::max({size(first), size(n - 1), size(0), size(m - 1)});
      for (std::size_t k = 0; k < m; ++k) base_[k] = forward[k] - H[k];
      scan({m, base_.data(), P.data(), x.data(), place.data(), rows, x.data() + first, P.data() + first,
            place.data() + first, values.data(), argument.data()});
      for (std::size_t r = 0; r < rows; ++r) values[r] += H[first + r];
    }
    std::ranges::copy(values, forward.begin());
    nodes_seen_ += rows;
  }
  bound_ = forward[0];
  found_.resize(levels_);
  found_[0] = 0;
  found_[levels_ - 1] = static_cast<std::uint32_t>(n - 1);
  for (std::size_t t = levels_ - 1, k = 0; t > 1; --t)
    found_[t - 1] = static_cast<std::uint32_t>(k = argument_[(t - 1) * n + k]);
  if (arithmetic_ == Arithmetic::about_mean) return line_->noise() * static_cast<double>(levels_);
  return arithmetic_ == Arithmetic::precise ? cost_ * 0x1p-50 * static_cast<double>(levels_) : far * 0x1p-51;
}

// The optimum over all edges.
void LevelNarrowing::layered(Result& result) {
  arithmetic_ = Arithmetic::about_mean;
  double rounding = all_edges();
  path_ = found_;
  cost_ = line_->cost_of(path_);
  // About the path, rounding is small where it matters; how small, the sum of the path itself tells.
  for (const auto next : {Arithmetic::about_path, Arithmetic::precise}) {
    if (next == Arithmetic::about_path && rounding <= kExact * cost_) break;
    if (next == Arithmetic::precise && rounding <= kBlind * cost_ && std::abs(bound_ - cost_) <= kExact * cost_) break;
    improve();
    arithmetic_ = next;
    rounding = all_edges();
    const double cost = line_->cost_of(found_);
    if (cost <= cost_) path_ = found_, cost_ = cost;
  }
  result.path = path_;
  result.cost = result.bound = cost_;
}

namespace {
/// Whether there is no choice: two levels, one edge, or a level for every value.
bool only_path(const LevelSums& line, std::size_t levels, LevelNarrowing::Result& result) {
  const auto end = static_cast<std::uint32_t>(line.edges() - 1);
  if (levels == 2 || end == 0) {
    result.path.assign(levels, end);
    result.path[0] = 0;
    result.cost = result.bound = line.cost_of(result.path);
    return true;
  }
  if (!line.resolved() || line.edges() > levels) return false;
  result.path.resize(levels);
  for (std::size_t t = 0; t < levels; ++t) result.path[t] = std::min(static_cast<std::uint32_t>(t), end);
  return true;
}
}  // namespace

LevelNarrowing::Result LevelNarrowing::solve(const LevelSums& line, std::size_t levels, double slack, Engine engine) {
  line_ = &line;
  levels_ = levels;
  nodes_seen_ = 0;
  Result result;
  if (engine == Engine::automatic)
    engine = line.resolved() && line.edges() <= std::max(kFewEdges, kFewPerLevel * levels) ? Engine::layered
                                                                                           : Engine::narrowing;
  if (only_path(line, levels, result)) return result;
  if (engine == Engine::layered) {
    layered(result);
    return result;
  }
  start(kPerLevel * levels);
  for (;;) {
    choose_arithmetic(certain() ? kExact : kCoarse);
    slacks();
    forwards();
    trace();
    const auto before = path_;
    const double before_cost = cost_;
    if (line.cost_of(found_) <= cost_ || !certain()) {
      path_ = found_;
      const bool exact = certain();
      exact ? void(cost_ = line.cost_of(path_)) : improve();
      if (cost_ > before_cost) path_ = before, cost_ = before_cost;
    }
    if (certain()) break;
    if (cost_ <= bound_ * (1 + slack)) break;
    backwards();
    prune();
    if (!split()) {
      if (!certain()) result.open_bins = open_bins();
      if (!result.open_bins.empty()) break;
    }
  }
  result.path = path_;
  result.cost = cost_;
  result.bound = certain() ? cost_ : std::min(bound_, cost_);
  return result;
}

}  // namespace lmq
