#include "interval_search.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace lmq {
namespace {

constexpr std::size_t kFewEdges = 320;    // so few are searched at once
constexpr double kEdgesInCell = 12;       // of the first look, by the width of cells at high rates
constexpr std::size_t kMinBins = 128;     // over the spread of the values
constexpr std::size_t kMaxInWindow = 48;  // edges of one window

// Edges no closer than `width`, those beside the pinned zero among them.
std::vector<std::uint32_t> spread_edges(const RateSums& line, double width) {
  std::vector<std::uint32_t> edges{0};
  for (std::size_t k = 1; k < line.points; ++k) {
    const bool at_zero = k == line.zero || k == line.zero + 1;
    if (at_zero || line.value[k] - line.value[edges.back()] > width) edges.push_back(static_cast<std::uint32_t>(k));
  }
  edges.push_back(static_cast<std::uint32_t>(line.points));
  return edges;
}

// All edges between the neighbours of each inner end of a path, thinned out where they are too many. True in
// `complete` when none was left out.
std::vector<std::uint32_t> edges_near(const std::vector<std::uint32_t>& edge, const std::vector<std::uint32_t>& path,
                                      bool& complete) {
  std::vector<std::uint32_t> near{edge.front()};
  complete = true;
  for (std::size_t t = 1; t + 1 < path.size(); ++t) {
    const auto at = std::ranges::lower_bound(edge, path[t]);
    const std::uint32_t first = std::max(*(at - 1), near.back()), last = *(at + 1), span = last - first;
    const std::uint32_t stride = span / static_cast<std::uint32_t>(kMaxInWindow) + 1;
    complete &= stride == 1;
    for (std::uint32_t e = first; e <= last; e += stride) near.push_back(e);
    near.push_back(path[t]);
    near.push_back(last);
  }
  near.push_back(edge.back());
  std::ranges::sort(near);
  near.erase(std::unique(near.begin(), near.end()), near.end());
  return near;
}

}  // namespace

// f[j] = min over i of f[i] + price(i, j). Source: Muresan & Effros 2008, section IV (a quantizer as a shortest path).
// A start i is dead for good once some k behind it is better by more than the entropy term can still give back: the
// difference of squared errors grows with j (Monge), that of the entropies is least at the last edge.
// More than 5 parameters: numbers of one price, kept in registers by the loops.
std::vector<std::uint32_t> IntervalSearch::cheapest_path(const CellColumns& columns, std::size_t edges,
                                                         std::size_t zero, double lambda, double cell_penalty,
                                                         double inverse_count) {
  const std::size_t last = edges - 1;
  const CellPrice price{lambda, inverse_count};
  f_.assign(edges, 0.0), rest_.assign(edges, 0.0), back_.assign(edges, 0);
  for (std::size_t i = 0; i < last; ++i) rest_[i] = -cell_bits(columns, inverse_count, i, last);
  const auto pinned = [&](std::size_t i, std::size_t j) { return i <= zero && zero < j; };
  const double slack = 1e-12 * (std::fabs(columns.c[0]) + std::fabs(columns.c[last]) + lambda / inverse_count);
  std::size_t alive = 0;
  for (std::size_t j = 1; j <= last; ++j) {
    const std::size_t free = j > zero ? zero + 1 : 0;  // starts before it have a cell with the pinned zero
    BestStart best = best_cell_start(columns, price, f_.data(), std::max(alive, free), j, j, false);
    if (alive < free) {
      const BestStart over = best_cell_start(columns, price, f_.data(), alive, free, j, true);
      if (over.value <= best.value) best = over;
    }
    f_[j] = best.value + cell_penalty;
    back_[j] = static_cast<std::uint32_t>(best.edge);
    const std::size_t k = best.edge;
    const double rival = f_[k] + cell_error(columns, k, j, pinned(k, j)) - lambda * rest_[k] + slack;
    while (alive < k && f_[alive] + cell_error(columns, alive, j, pinned(alive, j)) - lambda * rest_[alive] > rival)
      ++alive;
  }
  std::vector<std::uint32_t> path;
  for (std::size_t j = last; j > 0; j = back_[j]) path.push_back(static_cast<std::uint32_t>(j));
  path.push_back(0);
  std::ranges::reverse(path);
  return path;
}

std::vector<std::uint32_t> IntervalSearch::over(const RateSums& line, const std::vector<std::uint32_t>& edge,
                                                double lambda, double cell_penalty) {
  const auto take = [&](const std::vector<double>& from, std::vector<double>& to) {
    to.resize(edge.size());
    for (std::size_t e = 0; e < edge.size(); ++e) to[e] = from[edge[e]];
  };
  take(line.n, chosen_.n), take(line.a, chosen_.a), take(line.b, chosen_.b), take(line.c, chosen_.c);
  std::size_t zero = edge.size();
  if (line.zero < line.points)
    zero =
        static_cast<std::size_t>(std::ranges::upper_bound(edge, static_cast<std::uint32_t>(line.zero)) - edge.begin()) -
        1;
  auto path = cheapest_path({chosen_.n.data(), chosen_.a.data(), chosen_.b.data(), chosen_.c.data()}, edge.size(), zero,
                            lambda, cell_penalty, line.inverse_count);
  for (std::uint32_t& end : path) end = edge[end];
  return path;
}

std::vector<std::uint32_t> IntervalSearch::all_edges(const RateSums& line, double lambda, double cell_penalty) {
  return cheapest_path(line.columns(), line.points + 1, line.zero, lambda, cell_penalty, line.inverse_count);
}

std::vector<std::uint32_t> IntervalSearch::few_edges(const RateSums& line, double lambda, double cell_penalty) {
  if (line.points <= kFewEdges) return all_edges(line, lambda, cell_penalty);
  // At high rates D = lambda / (2 ln 2) = width^2 / 12; no wider than what a low rate still tells apart.
  const double cell = std::sqrt(lambda * line.count / line.mass * 8.656170245333781);
  const double bins = std::sqrt(12 * line.variance()) / static_cast<double>(kMinBins);
  auto edge = spread_edges(line, std::min(cell / kEdgesInCell, bins));
  auto path = over(line, edge, lambda, cell_penalty);
  for (int round = 0, complete = 0; round < 6 && complete == 0; ++round) {
    bool all = false;
    edge = edges_near(edge, path, all);
    path = over(line, edge, lambda, cell_penalty);
    complete = all ? 1 : 0;
  }
  return path;
}

// The least cell_penalty on a cell, to about 10 %, that leaves no more cells than wanted.
double IntervalSearch::penalty_for(const RateSums& line, double lambda, std::size_t most_cells) {
  double low = 0, high = 0;
  // All cells of one level cost at most the energy and no bits, so penalties end there.
  const auto fits = [&](double cell_penalty) { return few_edges(line, lambda, cell_penalty).size() - 1 <= most_cells; };
  double cell_penalty = 1e-3 * (line.energy + lambda * line.count) / static_cast<double>(most_cells);
  for (int step = 0; step < 60; ++step) {
    (fits(cell_penalty) ? high : low) = cell_penalty;
    if (low > 0 && high > 0 && high < 1.1 * low) break;
    cell_penalty = high == 0 ? low * 8 : low == 0 ? high / 8 : std::sqrt(low * high);
  }
  return high;
}

IntervalCode IntervalSearch::exact(const RateSums& line, double lambda, std::size_t most_cells) {
  if (line.points > kMaxExactPoints) return quick(line, lambda, most_cells);
  auto path = all_edges(line, lambda, 0);
  if (path.size() - 1 > most_cells)
    for (double cell_penalty = penalty_for(line, lambda, most_cells); path.size() - 1 > most_cells; cell_penalty *= 1.1)
      path = all_edges(line, lambda, cell_penalty);
  return interval_code(line, std::move(path));
}

IntervalCode IntervalSearch::quick(const RateSums& line, double lambda, std::size_t most_cells) {
  auto path = few_edges(line, lambda, 0);
  if (path.size() - 1 > most_cells) path = few_edges(line, lambda, penalty_for(line, lambda, most_cells));
  return interval_code(line, std::move(path));
}

std::optional<IntervalCode> IntervalSearch::cheaper(const RateSums& line, double lambda, std::size_t most_cells,
                                                    double price) {
  constexpr double kMissed = 1e-3;  // of the price: ten times what a search of few edges misses
  IntervalCode code = interval_code(line, few_edges(line, lambda, 0));
  if (code.cells() > most_cells) {
    if (code.price(lambda) > price * (1 + kMissed)) return std::nullopt;
    code = interval_code(line, few_edges(line, lambda, penalty_for(line, lambda, most_cells)));
  }
  if (!(code.price(lambda) < price)) return std::nullopt;
  return code;
}

}  // namespace lmq
