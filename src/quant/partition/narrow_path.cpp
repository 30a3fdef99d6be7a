// Paths: the reference, its potentials, a good first path, and the exact recurrence inside windows.
#include <algorithm>
#include <cmath>
#include <limits>

#include "lmq/base/rough_cube_root.hpp"
#include "narrow.hpp"

namespace lmq {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// True when the edges are neighbours.
bool run(std::span<const std::uint32_t> edges) { return edges.back() - edges.front() + std::size_t{1} == edges.size(); }

}  // namespace

void Narrowing::begin(const SortedPoints& points, std::size_t cells) {
  p_ = points;
  cells_ = cells;
  at_edges();
  scans_ = &partition_scans();
}

void Narrowing::at_edges() {
  inside_ = false;
  place_w_ = p_.W;
  place_s_ = p_.S;
}

double Narrowing::s(std::size_t t, std::size_t x, std::size_t from) const {
  return (place_s_[x] - p_.S[reference_[from]]) - layer_[t].level * (place_w_[x] - p_.W[reference_[from]]);
}

double Narrowing::phi(std::size_t t, std::size_t x) const {
  return layer_[t].step * ((place_s_[x] - p_.S[reference_[t]]) - layer_[t].theta * (place_w_[x] - p_.W[reference_[t]]));
}

void Narrowing::set_reference(const CellEnds& ends) {
  if (&ends != &reference_) reference_ = ends;
  layer_.assign(cells_ + 1, {});
  for (std::size_t t = 1; t <= cells_; ++t) {
    const std::size_t a = ends[t - 1], b = ends[t];
    Layer& layer = layer_[t];
    layer.level = b == a + 1 ? p_.value[a] : (p_.S[b] - p_.S[a]) / (p_.W[b] - p_.W[a]);
    layer.residual = (p_.S[b] - p_.S[a]) - layer.level * (p_.W[b] - p_.W[a]);
  }
  for (std::size_t t = 1; t < cells_; ++t) {
    layer_[t].step = 2 * (layer_[t + 1].level - layer_[t].level);
    layer_[t].theta = 0.5 * (layer_[t + 1].level + layer_[t].level);
  }
}

double Narrowing::reference_loss() const {
  double sum = 0;
  for (std::size_t t = 1; t <= cells_; ++t)
    for (std::size_t i = reference_[t - 1]; i < reference_[t]; ++i) {
      const double e = p_.value[i] - layer_[t].level;
      sum += p_.weight[i] * (e * e) + (p_.scatter != nullptr ? p_.scatter[i] : 0.0);
    }
  return sum;
}

// Loss of a path over edges in the units of the recurrence.
double Narrowing::excess(const CellEnds& ends) const {
  double sum = 0;
  for (std::size_t t = 1; t <= cells_; ++t) {
    const std::uint32_t a = ends[t - 1], b = ends[t], from = reference_[t];
    const auto shift = [&](std::uint32_t x, std::uint32_t at) {
      return (p_.S[x] - p_.S[at]) - layer_[t].level * (p_.W[x] - p_.W[at]);
    };
    const double e = shift(b, from) + layer_[t].residual - shift(a, reference_[t - 1]);
    sum -= e * e / (p_.W[b] - p_.W[a]);
    if (t < cells_) sum += layer_[t].step * ((p_.S[b] - p_.S[from]) - layer_[t].theta * (p_.W[b] - p_.W[from]));
  }
  return sum;
}

void Narrowing::lloyd(CellEnds& ends, int rounds) const {
  const auto mean = [&](std::size_t t) {
    return (p_.S[ends[t]] - p_.S[ends[t - 1]]) / (p_.W[ends[t]] - p_.W[ends[t - 1]]);
  };
  for (int round = 0; round < rounds; ++round) {
    bool moved = false;
    double before = mean(1);
    for (std::size_t t = 1; t < cells_; ++t) {
      const double after = mean(t + 1), theta = 0.5 * (before + after);
      const double* first = p_.value + ends[t - 1] + 1;  // cells stay non-empty
      const double* last = p_.value + ends[t + 1] - 1;
      const auto end = static_cast<std::uint32_t>(std::upper_bound(first, last, theta) - p_.value);
      moved |= end != ends[t];
      ends[t] = end;
      before = after;
    }
    if (!moved) return;
  }
}

// Edges of about equal sum of (width^2 weight)^(1/3): where the cells of a good partition are of equal number of
// blocks.
void Narrowing::companded(std::size_t blocks) {
  const std::size_t chunk = std::max<std::size_t>(1, p_.m / (3 * blocks));
  const auto of = [&](std::size_t i, std::size_t j) {
    const double width = p_.value[std::min(j, p_.m - 1)] - p_.value[i];
    return rough_cube_root(width * width * (p_.W[j] - p_.W[i]));
  };
  measure_.clear();
  for (std::size_t i = 0; i < p_.m; i += chunk) measure_.push_back(of(i, std::min(i + chunk, p_.m)));
  blocks_.assign(1, 0);
  // A chunk of c points is at most c blocks: a wide gap must not take the blocks of the rest.
  double share = kInfinity, total = 0;
  for (int round = 0; round < 4; ++round) {
    const double most = share * static_cast<double>(chunk);
    total = 0;
    for (const double x : measure_) total += std::min(x, most);
    share = total / static_cast<double>(blocks);
  }
  double sum = 0, next = share;
  const auto add = [&](std::size_t end) {
    if (end > blocks_.back() && end < p_.m) blocks_.push_back(static_cast<std::uint32_t>(end));
  };
  for (std::size_t c = 0, i = 0; i < p_.m; ++c, i += chunk) {
    const std::size_t end = std::min(i + chunk, p_.m);
    if (measure_[c] > 1.5 * share && chunk > 1) {  // a wide gap or tail: point by point
      double points = 0;
      for (std::size_t j = i; j < end; ++j) points += of(j, j + 1);
      const double scale = points > 0 ? measure_[c] / points : 0;
      for (std::size_t j = i; j < end; ++j) {
        sum += of(j, j + 1) * scale;
        if (sum >= next) add(j + 1), next = sum + share;
      }
    } else {
      sum += measure_[c];
      if (sum >= next) add(end), next += share;
      if (sum >= next) next = sum + share;
    }
  }
  blocks_.push_back(static_cast<std::uint32_t>(p_.m));
}

// Every (blocks / cells)-th block end; then Lloyd's steps.
void Narrowing::first_path(CellEnds& ends) const {
  const std::size_t n = blocks_.size() - 1;
  ends.resize(cells_ + 1);
  for (std::size_t t = 0; t <= cells_; ++t) {
    std::size_t end = blocks_[t * n / cells_];
    end = std::clamp(end, t, p_.m - cells_ + t);
    if (t > 0) end = std::max<std::size_t>(end, ends[t - 1] + 1);
    ends[t] = static_cast<std::uint32_t>(end);
  }
  ends[cells_] = static_cast<std::uint32_t>(p_.m);
  lloyd(ends, 8);
}

void Narrowing::whole_windows() {
  candidate_.assign(1, 0);
  candidate_at_.assign({0, 1});
  for (std::size_t t = 1; t < cells_; ++t) {
    for (std::size_t x = t; x <= p_.m - cells_ + t; ++x) candidate_.push_back(static_cast<std::uint32_t>(x));
    candidate_at_.push_back(static_cast<std::uint32_t>(candidate_.size()));
  }
  candidate_.push_back(static_cast<std::uint32_t>(p_.m));
  candidate_at_.push_back(static_cast<std::uint32_t>(candidate_.size()));
}

// Numbers of the candidates of two neighbouring thresholds: left and right ends of cell t.
void Narrowing::load_layer(std::size_t t) {
  const std::span left(candidate_.data() + candidate_at_[t - 1], candidate_at_[t] - candidate_at_[t - 1]);
  const std::span right(candidate_.data() + candidate_at_[t], candidate_at_[t + 1] - candidate_at_[t]);
  shift_.resize(left.size()), weight_.resize(left.size());
  row_shift_.resize(right.size()), row_weight_.resize(right.size());
  const double residual = layer_[t].residual;
  if (run(left)) {  // neighbours in memory
    for (std::size_t k = 0, x = left.front(); k < left.size(); ++k) shift_[k] = s(t, x + k, t - 1);
    std::copy_n(place_w_ + left.front(), left.size(), weight_.begin());
  } else {
    for (std::size_t k = 0; k < left.size(); ++k) shift_[k] = s(t, left[k], t - 1), weight_[k] = place_w_[left[k]];
  }
  if (run(right)) {
    for (std::size_t r = 0, x = right.front(); r < right.size(); ++r) row_shift_[r] = s(t, x + r, t) + residual;
    std::copy_n(place_w_ + right.front(), right.size(), row_weight_.begin());
  } else {
    for (std::size_t r = 0; r < right.size(); ++r)
      row_shift_[r] = s(t, right[r], t) + residual, row_weight_[r] = place_w_[right[r]];
  }
}

// One layer: rows [first, rows) have something below their limit, those before have not.
void Narrowing::solve_layer(std::size_t columns, std::size_t rows, std::uint32_t* argument) {
  std::size_t first = 0;
  while (first < rows && limit_[first] == 0) value_[first] = kInfinity, argument[first++] = 0;
  if (first == rows) return;
  scans_->layer({columns, base_.data(), shift_.data(), weight_.data(), rows - first, row_shift_.data() + first,
                 row_weight_.data() + first, limit_.data() + first, value_.data() + first, argument + first});
}

// The exact recurrence over the candidates of each threshold: candidate_[candidate_at_[t] ..), ascending.
// forward_[c]: least excess up to a threshold at candidate c. Returns that of all.
double Narrowing::forwards() {
  back_.resize(candidate_.size()), forward_.resize(candidate_.size());
  base_.assign(1, 0.0);
  forward_[0] = 0;
  for (std::size_t t = 1; t <= cells_; ++t) {
    load_layer(t);
    const std::uint32_t *left = candidate_.data() + candidate_at_[t - 1], *right = candidate_.data() + candidate_at_[t];
    const std::size_t lefts = shift_.size(), rights = row_shift_.size();
    limit_.resize(rights), value_.resize(rights);
    for (std::size_t r = 0, limit = 0; r < rights; ++r) {
      while (limit < lefts && left[limit] < right[r]) ++limit;
      limit_[r] = static_cast<std::uint32_t>(limit);
    }
    solve_layer(lefts, rights, back_.data() + candidate_at_[t]);
    for (std::size_t r = 0; r < rights; ++r) {
      const std::size_t k = limit_[r];
      if (inside_ && right[r] % 2 == 1 && k < lefts && left[k] == right[r] && base_[k] <= value_[r]) {
        value_[r] = base_[k];  // a cell of no weight, between two thresholds inside one block
        back_[candidate_at_[t] + r] = static_cast<std::uint32_t>(k);
      }
      if (t < cells_) value_[r] += phi(t, right[r]);
    }
    std::ranges::copy(value_, forward_.begin() + candidate_at_[t]);
    std::swap(base_, value_);
  }
  return forward_.back();
}

// backward_[c]: least excess behind a threshold at candidate c. The same recurrence in a mirror.
void Narrowing::backwards() {
  backward_.resize(candidate_.size());
  backward_.back() = 0;
  base_.assign(1, 0.0);
  for (std::size_t t = cells_; t > 0; --t) {
    load_layer(t);
    std::swap(shift_, row_shift_), std::swap(weight_, row_weight_);
    for (auto* array : {&shift_, &weight_, &row_shift_, &row_weight_}) {
      std::ranges::reverse(*array);
      for (double& x : *array) x = -x;
    }
    const std::size_t columns = shift_.size(), rows = row_shift_.size();
    const std::uint32_t *left = candidate_.data() + candidate_at_[t - 1], *right = candidate_.data() + candidate_at_[t];
    limit_.resize(rows), value_.resize(rows), argument_.resize(rows);
    for (std::size_t r = 0, limit = 0; r < rows; ++r) {
      while (limit < columns && right[columns - 1 - limit] > left[rows - 1 - r]) ++limit;
      limit_[r] = static_cast<std::uint32_t>(limit);
    }
    solve_layer(columns, rows, argument_.data());
    for (std::size_t r = 0; r < rows; ++r) {
      const std::size_t k = limit_[r];
      const std::uint32_t x = left[rows - 1 - r];
      if (inside_ && x % 2 == 1 && k < columns && right[columns - 1 - k] == x)
        value_[r] = std::min(value_[r], base_[k]);
      backward_[candidate_at_[t] - 1 - r] = value_[r];
      if (t > 1) value_[r] += phi(t - 1, x);
    }
    std::swap(base_, value_);
  }
}

// The best path through the candidates, after forwards().
void Narrowing::trace(CellEnds& path) const {
  path.resize(cells_ + 1);
  std::size_t k = 0;
  for (std::size_t t = cells_; t > 0; --t) {
    path[t] = candidate_[candidate_at_[t] + k];
    k = back_[candidate_at_[t] + k];
  }
  path[0] = 0;
}

double Narrowing::windowed(CellEnds& ends) {
  const double least = forwards();
  trace(ends);
  return least;
}

// Candidates: the edges that the best partition into another number of cells leaves to each threshold.
void Narrowing::windows_between(const CellEnds& other) {
  const auto ahead = static_cast<std::ptrdiff_t>(cells_) - static_cast<std::ptrdiff_t>(other.size() - 1);
  const auto end = [&](std::ptrdiff_t t) {
    return other[static_cast<std::size_t>(
        std::clamp<std::ptrdiff_t>(t, 0, static_cast<std::ptrdiff_t>(other.size()) - 1))];
  };
  candidate_.assign(1, 0);
  candidate_at_.assign({0, 1});
  for (std::size_t t = 1; t < cells_; ++t) {
    const auto at = static_cast<std::ptrdiff_t>(t);
    const std::size_t first = std::max<std::size_t>(end(std::min(at, at - ahead)), t);
    const std::size_t last = std::min<std::size_t>(end(std::max(at, at - ahead)), p_.m - cells_ + t);
    for (std::size_t x = first; x <= last; ++x) candidate_.push_back(static_cast<std::uint32_t>(x));
    candidate_at_.push_back(static_cast<std::uint32_t>(candidate_.size()));
  }
  candidate_.push_back(static_cast<std::uint32_t>(p_.m));
  candidate_at_.push_back(static_cast<std::uint32_t>(candidate_.size()));
}

double Narrowing::slope(const SortedPoints& points, std::size_t cells) {
  begin(points, cells);
  companded(std::min(points.m, 8 * cells));
  first_path(path_);
  set_reference(path_);
  return 2 * reference_loss() / static_cast<double>(cells);
}

void Narrowing::solve_interlaced(const SortedPoints& points, std::size_t cells, CellEnds& ends) {
  const SquaredErrorCost cost{points.W, points.S, points.C};
  double penalty = slope(points, cells);
  const auto wanted = static_cast<double>(cells);
  for (int run = 0;; ++run) {
    const CellEnds& found = penalised_.solve(cost, points.m, penalty);
    const double ratio = static_cast<double>(found.size() - 1) / wanted;
    if (found.size() - 1 == cells) {
      ends = found;
      return;
    }
    if (run == 2 || std::abs(ratio - 1) * wanted <= 8) {  // a cell of difference costs a tenth of a run of E1
      windows_between(found);
      windowed(ends);
      return;
    }
    penalty *= ratio * ratio * ratio;
  }
}

void Narrowing::solve_layered(const SortedPoints& points, std::size_t cells, CellEnds& ends) {
  (void)slope(points, cells);  // a good reference
  whole_windows();
  windowed(ends);
}

}  // namespace lmq
