#include "lmq/quant/width_allocation.hpp"

#include <algorithm>
#include <limits>
#include <queue>

#include "width_search.hpp"

namespace lmq {
namespace {

/// A change of one scope: what it gains for a byte.
struct Gain {
  double ratio = 0;
  std::size_t scope = 0, point = 0;
  [[nodiscard]] bool operator<(const Gain& other) const noexcept {
    return ratio != other.ratio ? ratio < other.ratio : scope > other.scope;
  }
};

/// The best change of a scope that takes at most `left` bytes more; ratio 0: there is none.
Gain best_gain(const WidthTable& table, std::size_t scope, std::size_t now, double left) noexcept {
  Gain best{0, scope, now};
  for (std::size_t p = 0; p < table.size(); ++p) {
    const double bytes = table[p].bytes - table[now].bytes, gain = table[now].loss - table[p].loss;
    if (!(gain > 0) || bytes > left) continue;
    const double ratio = bytes > 0 ? gain / bytes : std::numeric_limits<double>::infinity();
    if (ratio > best.ratio) best = {ratio, scope, p};
  }
  return best;
}

/// A step from one point of a hull to the next.
struct HullStep {
  double slope = 0;
  std::size_t scope = 0, place = 0, point = 0;  // place: on the hull
};

/// The widest width that fits everywhere; where a table lacks it, the widest below, or its first.
std::optional<WidthChoice> choose_uniform(WidthTables tables, double room) {
  std::vector<std::size_t> widths;
  for (const WidthTable& table : tables)
    for (const WidthPoint& point : table) widths.push_back(point.width);
  std::ranges::sort(widths);
  widths.erase(std::ranges::unique(widths).begin(), widths.end());
  std::optional<WidthChoice> best;
  for (const std::size_t width : widths) {
    std::vector<std::size_t> points;
    for (const WidthTable& table : tables) {
      const auto above = std::ranges::upper_bound(table, width, {}, &WidthPoint::width);
      points.push_back(above == table.begin() ? 0 : static_cast<std::size_t>(above - table.begin()) - 1);
    }
    WidthChoice choice = choice_of(tables, std::move(points));
    if (choice.bytes <= room) best = std::move(choice);
  }
  return best;
}

}  // namespace

WidthChoice choice_of(WidthTables tables, std::vector<std::size_t> points) {
  WidthChoice choice{std::move(points)};
  for (std::size_t s = 0; s < tables.size(); ++s) {
    choice.bytes += tables[s][choice.points[s]].bytes;
    choice.loss += tables[s][choice.points[s]].loss;
  }
  return choice;
}

void fill_room(WidthTables tables, double room, WidthChoice& choice) {
  std::priority_queue<Gain> gains;
  double left = room - choice.bytes;
  const auto look = [&](std::size_t scope) {
    const Gain gain = best_gain(tables[scope], scope, choice.points[scope], left);
    if (gain.ratio > 0) gains.push(gain);
  };
  for (std::size_t s = 0; s < tables.size(); ++s) look(s);
  while (!gains.empty()) {
    const Gain gain = gains.top();
    gains.pop();
    std::size_t& now = choice.points[gain.scope];
    const double bytes = tables[gain.scope][gain.point].bytes - tables[gain.scope][now].bytes;
    if (bytes <= left) now = gain.point, left -= bytes;
    look(gain.scope);
  }
  choice = choice_of(tables, std::move(choice.points));
}

std::vector<std::size_t> width_hull(const WidthTable& table) {
  std::vector<std::size_t> order(table.size()), hull;
  for (std::size_t p = 0; p < table.size(); ++p) order[p] = p;
  std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) {
    return table[a].bytes != table[b].bytes ? table[a].bytes < table[b].bytes : table[a].loss < table[b].loss;
  });
  const auto slope = [&](std::size_t a, std::size_t b) {
    return (table[a].loss - table[b].loss) / (table[b].bytes - table[a].bytes);
  };
  for (const std::size_t p : order) {
    if (!hull.empty() && !(table[p].loss < table[hull.back()].loss)) continue;  // nothing for its bytes
    while (hull.size() > 1 && slope(hull[hull.size() - 2], hull.back()) <= slope(hull.back(), p)) hull.pop_back();
    hull.push_back(p);
  }
  return hull;
}

std::optional<SlopeChoice> choose_by_slope(WidthTables tables, double room) {
  std::vector<std::size_t> points;
  std::vector<HullStep> steps;
  for (std::size_t s = 0; s < tables.size(); ++s) {
    const std::vector<std::size_t> hull = width_hull(tables[s]);
    points.push_back(hull.front());
    for (std::size_t i = 1; i < hull.size(); ++i) {
      const WidthPoint &from = tables[s][hull[i - 1]], &to = tables[s][hull[i]];
      steps.push_back({(from.loss - to.loss) / (to.bytes - from.bytes), s, i, hull[i]});
    }
  }
  SlopeChoice found{choice_of(tables, std::move(points))};
  if (found.choice.bytes > room) return std::nullopt;
  std::ranges::stable_sort(steps, [](const HullStep& a, const HullStep& b) { return a.slope > b.slope; });
  std::vector<std::size_t> place(tables.size(), 0);
  double bytes = found.choice.bytes;
  for (const HullStep& step : steps) {
    if (place[step.scope] + 1 != step.place) continue;  // an earlier one of the scope did not fit
    const WidthTable& table = tables[step.scope];
    const double more = table[step.point].bytes - table[found.choice.points[step.scope]].bytes;
    if (bytes + more > room) {
      if (found.stopped_at == 0) found.stopped_at = step.slope;
      continue;
    }
    bytes += more, place[step.scope] = step.place, found.choice.points[step.scope] = step.point;
  }
  found.choice = choice_of(tables, std::move(found.choice.points));
  fill_room(tables, room, found.choice);
  if (auto uniform = choose_uniform(tables, room); uniform && uniform->loss < found.choice.loss) {
    found.choice = std::move(*uniform);
    fill_room(tables, room, found.choice);
  }
  return found;
}

std::optional<WidthChoice> allocate_widths(Allocation how, WidthTables tables, double room) {
  if (how == Allocation::uniform) return choose_uniform(tables, room);
  auto by_slope = choose_by_slope(tables, room);
  if (!by_slope) return std::nullopt;
  if (how == Allocation::exact) return choose_exactly(tables, room, *by_slope);
  if (how == Allocation::dropbits) return choose_by_gates(tables, room);
  return std::move(by_slope->choice);
}

}  // namespace lmq
