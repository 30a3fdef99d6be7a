#include "sls_l1l2.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace lmq {
namespace {
constexpr std::size_t kMaxConcave = 20000;  // about 50 well inside the convex range; more at its edge
constexpr double kConcaveStop = 1e-15;      // relative fall of the objective
}  // namespace

double SparseL1L2::objective(SparseData data, std::span<const double> x, double lambda1, double lambda2) const {
  double sum = 0;
  for (std::size_t k = 0; k < x.size(); ++k) {
    const double e = data.u[k] - x[k];
    sum += 0.5 * data.a[k] * (e * e);
    if (k == 0) continue;
    const double gap = data.u[k] - data.u[k - 1], jump = x[k] - x[k - 1], part = jump / scale(gap);
    sum += lambda1 * (std::abs(jump) / gap) + lambda2 * (part * part);
  }
  return sum;
}

// The inverse of the quadratic form of alpha (offset profiled out) has the diagonal (1/a_i + 1/a_{i+1}) / d^2 and
// -1 / (a_{i+1} d d') beside it. Sturm: sigma exceeds all its eigenvalues iff every pivot of sigma - T is positive.
double SparseL1L2::convex_limit(SparseData data) const {
  const std::size_t m = data.u.size();
  if (m < 2) return std::numeric_limits<double>::infinity();
  const auto diagonal = [&](std::size_t k) {
    const double d = scale(data.u[k] - data.u[k - 1]);
    return (1 / data.a[k - 1] + 1 / data.a[k]) / d / d;
  };
  double low = 0;
  for (std::size_t k = 1; k < m; ++k) low = std::max(low, diagonal(k));
  const auto exceeds = [&](double sigma) {
    double pivot = 1, before = 0;
    for (std::size_t k = 1; k < m; ++k) {
      const double d = scale(data.u[k] - data.u[k - 1]), beside = k > 1 ? 1 / data.a[k - 1] / d / before : 0;
      pivot = sigma - diagonal(k) - (k > 1 ? beside * (beside / pivot) : 0);
      if (!(pivot > 0)) return false;
      before = d;
    }
    return true;
  };
  double high = 2 * low;  // diagonally dominant with positive entries after signs: no eigenvalue exceeds twice the
                          // largest diagonal entry, by Cauchy-Schwarz on neighbouring differences
  for (int round = 0; round < 60 && high - low > 1e-14 * high; ++round) {
    const double middle = 0.5 * (low + high);
    (exceeds(middle) ? high : low) = middle;
  }
  return 0.5 / high;
}

// Solves for z on all edges with the present set of jumps:
//   -z_{i-1}/a_i + (1/a_i + 1/a_{i+1} + [i jumps]/(2 mu_i)) z_i - z_{i+1}/a_{i+1} = d_{i+1} + [i jumps] w_i/(2 mu_i)
// Pivots are kept as p_i = 1/a_{i+1} + q_i, so that nothing cancels: every term is positive.
void SparseL1L2::multipliers(SparseData data, double lambda1, double lambda2) {
  const std::size_t edges = data.u.size() - 1;
  pivot_.resize(edges), right_.resize(edges), z_.resize(edges);
  const double half = 0.5 / lambda2;
  double rest = 1;  // q_{i-1} / p_{i-1}; z_0 = 0: the first edge sees all of 1/a_1
  double carried = 0;
  for (std::size_t i = 0; i < edges; ++i) {
    const double gap = data.u[i + 1] - data.u[i], inverse = 1 / data.a[i];
    double q = inverse * rest, r = gap + inverse * carried;
    if (jumps_[i]) {
      const double s = scale(gap), e = s * s * half;
      q += e;
      r += lambda1 * (s / gap) * (s * half);
    }
    const double p = 1 / data.a[i + 1] + q;
    pivot_[i] = p, right_[i] = r;
    rest = q / p, carried = r / p;
  }
  double next = 0;
  for (std::size_t i = edges; i-- > 0;) {
    const double behind = i + 1 < edges ? next / data.a[i + 1] : 0;
    z_[i] = next = (right_[i] + behind) / pivot_[i];
  }
}

// Each step solves a linear problem from above: after the first one multipliers only fall (the residual is convex, its
// matrix an M-matrix), so edges only leave the set. Said outright, that ends whatever rounding does.
void SparseL1L2::newton(SparseData data, double lambda1, double lambda2) {
  const std::size_t edges = data.u.size() - 1;
  if (jumps_.size() != edges) jumps_.assign(edges, false);
  bool changed = true;
  for (steps_ = 1; changed; ++steps_) {
    multipliers(data, lambda1, lambda2);
    changed = false;
    for (std::size_t i = 0; i < edges; ++i) {
      const bool jumps = z_[i] > lambda1 / (data.u[i + 1] - data.u[i]) && (steps_ == 1 || jumps_[i]);
      changed |= jumps != jumps_[i];
      jumps_[i] = jumps;
    }
  }
}

// x from the jumps (z_k - w_k) / (2 mu_k), with the mean of the data: the offset is free.
void SparseL1L2::levels_from_jumps(SparseData data, double lambda1, double lambda2) {
  const std::size_t m = data.u.size();
  x_.resize(m);
  ends_.assign(1, 0);
  double x = 0, weight = 0, sum = 0;  // x and u minus u_1
  for (std::size_t k = 0; k < m; ++k) {
    if (k > 0 && jumps_[k - 1]) {
      const double gap = data.u[k] - data.u[k - 1], s = scale(gap);
      x += (z_[k - 1] - lambda1 / gap) * (0.5 * s) * (s / lambda2);
      ends_.push_back(static_cast<std::uint32_t>(k));
    }
    x_[k] = x;
    weight += data.a[k];
    sum += data.a[k] * ((data.u[k] - data.u[0]) - x);
  }
  ends_.push_back(static_cast<std::uint32_t>(m));
  const double first = data.u[0] + sum / weight;
  for (double& level : x_) level += first;
}

void SparseL1L2::convex_concave(SparseData data, double lambda1, double lambda2) {
  const std::size_t m = data.u.size();
  slope_.resize(m + 1);
  slope_[0] = slope_[m] = 0;
  x_.assign(m, data.u[0]);  // no jumps: the first step is l1
  double best = 0;
  for (steps_ = 1; steps_ <= kMaxConcave; ++steps_) {
    for (std::size_t k = 1; k < m; ++k) {
      const double gap = data.u[k] - data.u[k - 1], s = scale(gap);
      slope_[k] = lambda1 / gap + 2 * lambda2 * ((x_[k] - x_[k - 1]) / s) / s;
    }
    const auto blocks = l1_.pool(data, slope_);
    for (const PooledBlock& block : blocks) std::fill(x_.begin() + block.begin, x_.begin() + block.end, block.value);
    cell_ends(blocks, ends_);
    const double now = objective(data, x_, lambda1, lambda2);
    if (steps_ > 1 && !(now < best - kConcaveStop * std::abs(best))) return;
    best = now;
  }
}

const CellEnds& SparseL1L2::solve(SparseData data, double lambda1, double lambda2) {
  const std::size_t m = data.u.size();
  if (m == 1 || lambda2 == 0) {
    const auto blocks = l1_.solve(data, lambda1);
    x_.resize(m);
    for (const PooledBlock& block : blocks) std::fill(x_.begin() + block.begin, x_.begin() + block.end, block.value);
    cell_ends(blocks, ends_);
  } else if (lambda2 > 0) {
    newton(data, lambda1, lambda2);
    levels_from_jumps(data, lambda1, lambda2);
  } else {
    convex_concave(data, lambda1, lambda2);
  }
  return ends_;
}

// The number of levels falls as lambda1 grows, about as its root; where that guess does not lead, the geometric middle.
// No logarithms: they may differ from machine to machine, and a power of two in the data shall only scale the result.
double SparseL1L2::lambda_for(SparseData data, double lambda2, std::size_t levels) {
  jumps_.clear();
  if (data.u.size() <= levels) {
    (void)solve(data, 0, lambda2);
    return 0;
  }
  const auto aim = static_cast<double>(levels);
  double high = SparseL1::lambda_max(data), low = high * 0x1p-80, guess = high * 0x1p-10;
  for (int round = 0; round < 200 && high - low > 1e-13 * high; ++round) {
    const bool middle = round % 3 == 2 || !(guess > low && guess < high);
    const double lambda = middle ? std::sqrt(low * high) : guess;
    const std::size_t found = solve(data, lambda, lambda2).size() - 1;
    if (found == levels) return lambda;
    (found > levels ? low : high) = lambda;
    const double ratio = static_cast<double>(found) / (found > levels ? aim - 0.25 : aim + 0.25);
    guess = lambda * (ratio * ratio);
  }
  (void)solve(data, high, lambda2);
  return high;
}

}  // namespace lmq
