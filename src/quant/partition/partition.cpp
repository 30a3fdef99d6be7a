#include "lmq/quant/partition.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lmq/base/error.hpp"
#include "lmq/base/running_sum.hpp"
#include "lmq/kernels/sort_floats.hpp"
#include "narrow.hpp"
#include "row_partition.hpp"

namespace lmq {

CellEnds splice_paths(const CellEnds& few, const CellEnds& many, std::size_t cells) {
  const std::size_t ahead = cells - (few.size() - 1);
  for (std::size_t i = 0; i + 1 < few.size(); ++i) {
    if (!(few[i] <= many[i + ahead] && many[i + ahead + 1] <= few[i + 1])) continue;
    CellEnds path(many.begin(), many.begin() + static_cast<std::ptrdiff_t>(i + ahead + 1));
    path.insert(path.end(), few.begin() + static_cast<std::ptrdiff_t>(i + 1), few.end());
    return path;
  }
  fail(Errc::internal, "two paths of " + std::to_string(few.size() - 1) + " and " + std::to_string(many.size() - 1) +
                           " cells do not cross at " + std::to_string(cells));
}

CellEnds LayeredPartition::ends(std::size_t cells) const {
  CellEnds path(cells + 1);
  std::size_t j = m_;
  for (std::size_t k = cells; k > 0; --k) {
    path[k] = static_cast<std::uint32_t>(j);
    j = back_[(k - 1) * (m_ + 1) + j];
  }
  return path;
}

constexpr double kMinPoint = 0x1p-40;  // least weight of a point, as a part of the mean

struct PartitionSolver::State {
  std::vector<double> given;          // the points
  std::vector<double> value, weight;  // the same minus the centre
  std::vector<double> sums;           // W, S, C, each with kRowPad before it
  double *W = nullptr, *S = nullptr, *C = nullptr;
  std::vector<double> low, high, scatter;  // of a group's bins
  std::vector<float> sorted, sorted_weight;
  SortScratch sort;
  double centre = 0;
  std::size_t m = 0;
  bool weighted = false;
  CellEnds ends;
  Narrowing narrowing;
  RowPartition rows;
  double gap = 0;                   // of the last group
  std::vector<std::uint32_t> open;  // its bins

  void load_ranges(const Group& group);
  void load(std::span<const double> values, std::span<const double> weights);
  void set_weights(std::span<const double> weights);
  void load_floats(std::span<const float> ascending, std::span<const float> weights, std::size_t cells);
  void centre_values();
  void prefix_sums();
  void run(std::size_t cells, Engine engine);
  std::size_t fit(std::span<const float> ascending, std::span<const float> weights, std::size_t cells,
                  std::span<float> out);
  [[nodiscard]] SortedPoints points() const {
    return {m, value.data(), weight.data(), W, S, C, nullptr, nullptr, nullptr};
  }
  [[nodiscard]] double level(std::size_t cell) const;
};

void PartitionSolver::State::set_weights(std::span<const double> weights) {
  weighted = !weights.empty();
  if (!weighted) {
    weight.assign(m, 1.0);
    return;
  }
  weight.assign(weights.begin(), weights.end());
  const double total = std::accumulate(weight.begin(), weight.end(), 0.0);
  weighted = total > 0;
  // Every point must raise the running sum of weights, else a cell has none.
  const double least = std::max(kMinPoint / static_cast<double>(m), 0x1p-50) * total;
  for (double& w : weight) w = weighted ? std::max(w, least) : 1.0;
}

void PartitionSolver::State::load(std::span<const double> values, std::span<const double> weights) {
  m = values.size();
  if (m == 0 || m >= (std::size_t{1} << 31)) fail(Errc::internal, "a partition of " + std::to_string(m) + " points");
  if (!weights.empty() && weights.size() != m)
    fail(Errc::internal, "weights and values of a partition differ in number");
  given.assign(values.begin(), values.end());
  set_weights(weights);
  centre_values();
}

void PartitionSolver::State::centre_values() {
  m = given.size();
  centre = given[m / 2];
  value.resize(m);
  for (std::size_t i = 0; i < m; ++i) value[i] = given[i] - centre;
}

// From the middle edge outwards, both ways at the same time: far outliers meet only the sums behind them.
void PartitionSolver::State::prefix_sums() {
  const std::size_t stride = m + 1 + kRowPad, middle = m / 2;
  if (sums.size() < 3 * stride) sums.resize(3 * stride);
  W = sums.data() + kRowPad, S = W + stride, C = S + stride;
  for (double* array : {W, S, C}) std::fill_n(array - kRowPad, kRowPad, 0.0);
  W[middle] = S[middle] = C[middle] = 0;
  RunningPair w, s, c;
  for (std::size_t k = 0; k < m - middle; ++k) {
    const std::size_t up = middle + k, down = middle - std::min(k + 1, middle);
    const Two mass = {weight[up], weight[down]}, x = {value[up], value[down]}, first = mass * x;
    w.add(mass), s.add(first), c.add(first * x);
    const Two a = w.total(), b = s.total(), e = c.total();
    if (k < middle) W[down] = -a[1], S[down] = -b[1], C[down] = -e[1];
    W[up + 1] = a[0], S[up + 1] = b[0], C[up + 1] = e[0];
  }
}

void PartitionSolver::State::run(std::size_t cells, Engine engine) {
  cells = std::clamp<std::size_t>(cells, 1, m);
  if (cells == m) {
    ends.resize(m + 1);
    std::iota(ends.begin(), ends.end(), 0u);
    return;
  }
  if (cells == 1) {
    ends.assign({0, static_cast<std::uint32_t>(m)});
    return;
  }
  prefix_sums();
  // Measured with tests/bench/partition_bench.cpp.
  if (engine == Engine::automatic && rows.is_preferable(points(), !weighted, cells)) engine = Engine::rows;
  if (engine == Engine::automatic) {
    engine = cells <= 4 ? Engine::layered : Engine::interlaced;
    if (cells <= 8 && m >= 1024 * cells) engine = Engine::narrowing;
  }
  if (engine == Engine::layered)
    narrowing.solve_layered(points(), cells, ends);
  else if (engine == Engine::lagrangian)
    ends = lagrangian_partition(SquaredErrorCost{W, S, C}, m, cells, narrowing.slope(points(), cells));
  else if (engine == Engine::interlaced)
    narrowing.solve_interlaced(points(), cells, ends);
  else if (engine == Engine::rows)
    rows.solve(points(), !weighted, cells, ends);
  else
    narrowing.solve(points(), cells, ends);
}

double PartitionSolver::State::level(std::size_t cell) const {
  const std::size_t a = ends[cell], b = ends[cell + 1];
  if (b == a + 1) return given[a];
  const double near = given[(a + b) / 2];
  double w = 0, s = 0;
  for (std::size_t i = a; i < b; ++i) w += weight[i], s += weight[i] * (given[i] - near);
  return s / w + near;
}

PartitionSolver::PartitionSolver() : state_(std::make_unique<State>()) {}
PartitionSolver::PartitionSolver(PartitionSolver&&) noexcept = default;
PartitionSolver& PartitionSolver::operator=(PartitionSolver&&) noexcept = default;
PartitionSolver::~PartitionSolver() = default;

std::span<const std::uint32_t> PartitionSolver::solve(std::span<const double> values, std::span<const double> weights,
                                                      std::size_t cells, Engine engine) {
  state_->load(values, weights);
  state_->run(cells, engine);
  return state_->ends;
}

double PartitionSolver::loss() const {
  const State& s = *state_;
  double sum = 0;
  for (std::size_t t = 0; t + 1 < s.ends.size(); ++t) {
    if (s.ends[t + 1] == s.ends[t] + 1) continue;
    double w = 0, first = 0, squares = 0;
    const double near = s.given[(s.ends[t] + s.ends[t + 1]) / 2];
    for (std::size_t i = s.ends[t]; i < s.ends[t + 1]; ++i)
      w += s.weight[i], first += s.weight[i] * (s.given[i] - near);
    const double mean = first / w;
    for (std::size_t i = s.ends[t]; i < s.ends[t + 1]; ++i) {
      const double e = (s.given[i] - near) - mean;
      squares += s.weight[i] * (e * e);
    }
    sum += squares;
  }
  return sum;
}

std::vector<double> PartitionSolver::levels() const {
  std::vector<double> levels(state_->ends.size() - 1);
  for (std::size_t t = 0; t < levels.size(); ++t) levels[t] = state_->level(t);
  return levels;
}

LayeredPartition PartitionSolver::all(std::span<const double> values, std::span<const double> weights,
                                      std::size_t most_cells) {
  state_->load(values, weights);
  state_->prefix_sums();
  return {SquaredErrorCost{state_->W, state_->S, state_->C}, state_->m, most_cells};
}

// Few equal values stay points of their own: unlike merged ones they have equal weights. No best partition into fewer
// cells than distinct values parts them.
void PartitionSolver::State::load_floats(std::span<const float> ascending, std::span<const float> weights,
                                         std::size_t cells) {
  const std::size_t n = ascending.size();
  const float largest = weights.empty() ? 0.0f : *std::ranges::max_element(weights);
  const double least = double{largest} * kMinWeight;
  weighted = largest > 0;
  given.assign(ascending.begin(), ascending.end());
  if (weighted) {
    weight.resize(n);
    for (std::size_t i = 0; i < n; ++i) weight[i] = std::max(double{weights[i]}, least);
  } else {
    weight.assign(n, 1.0);
  }
  std::size_t distinct = 1;
  for (std::size_t i = 1; i < n; ++i) distinct += ascending[i] != ascending[i - 1] ? 1 : 0;
  if (distinct == n || (distinct > cells && n - distinct <= n / 4 && RowPartition::always_suits(n, cells))) return;
  std::size_t last = 0;
  for (std::size_t i = 1; i < n; ++i)
    if (given[i] == given[last])
      weight[last] += weight[i];
    else
      given[++last] = given[i], weight[last] = weight[i];
  given.resize(distinct), weight.resize(distinct);
  weighted = true;
}

std::size_t PartitionSolver::State::fit(std::span<const float> ascending, std::span<const float> weights,
                                        std::size_t cells, std::span<float> out) {
  if (ascending.empty()) fail(Errc::internal, "a partition of 0 points");
  load_floats(ascending, weights, cells);
  centre_values();
  run(cells, Engine::automatic);
  for (std::size_t t = 0; t + 1 < ends.size(); ++t) out[t] = static_cast<float>(level(t));
  return ends.size() - 1;
}

std::size_t PartitionSolver::fit_sorted(std::span<const float> sorted, std::span<const float> weights,
                                        std::size_t cells, std::span<float> levels) {
  return state_->fit(sorted, weights, cells, levels);
}

std::size_t PartitionSolver::fit_values(std::span<const float> values, std::span<const float> weights,
                                        std::size_t cells, std::span<float> levels) {
  State& s = *state_;
  s.sorted.resize(values.size()), s.sorted_weight.resize(weights.size());
  sort_floats(values, weights, s.sorted, s.sorted_weight, s.sort);
  return s.fit(s.sorted, s.sorted_weight, cells, levels);
}

std::span<const std::uint32_t> PartitionSolver::solve_group(const Group& group, std::size_t cells) {
  State& s = *state_;
  s.load(group.mean, group.mass);
  s.open.clear();
  s.gap = 0;
  if (cells <= 1 || group.resolved()) {
    s.run(cells, Engine::automatic);
    return s.ends;
  }
  if (cells >= s.m) {
    s.run(cells, Engine::automatic);
    s.gap = 1;
    for (std::uint32_t j = 0; j < s.m; ++j)
      if (group.low[j] != group.high[j]) s.open.push_back(j);
    return s.ends;
  }
  s.load_ranges(group);
  s.prefix_sums();
  SortedPoints points = s.points();
  points.low = s.low.data();
  points.high = s.high.data();
  points.scatter = s.scatter.data();
  s.gap = s.narrowing.bracket(points, cells, kClosedGap, s.ends, s.open);
  return s.ends;
}

double PartitionSolver::gap() const { return state_->gap; }

std::span<const std::uint32_t> PartitionSolver::open_bins() const { return state_->open; }

void PartitionSolver::State::load_ranges(const Group& group) {
  low.resize(m), high.resize(m), scatter.resize(m);
  for (std::size_t j = 0; j < m; ++j) {
    const bool single = group.low[j] == group.high[j] || !(group.scatter[j] > 0);
    // A mean rounded out of its bin's range must not hide a threshold.
    low[j] = single ? value[j] : std::min(double{group.low[j]} - centre, value[j]);
    high[j] = single ? value[j] : std::max(double{group.high[j]} - centre, value[j]);
    scatter[j] = single ? 0.0 : group.scatter[j];
  }
}

}  // namespace lmq
