#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "binary_fit.hpp"

namespace lmq {
namespace {

constexpr std::size_t kMaxSums = std::size_t{1} << (kMaxBases - 1);
constexpr int kMaxSteps = 200;
constexpr double kStill = 1e-12;  // of the energy: what a step must gain

using Matrix = std::array<std::array<double, kMaxBases>, kMaxBases>;

/// Normal equations of a code: gram[j][l] = sum weight s_j s_l, right[j] = sum weight s_j y.
struct Normal {
  Matrix gram{};
  std::array<double, kMaxBases> right{};
};

double sign_of(std::uint32_t code, std::size_t base, std::size_t bases) {
  return (code >> (bases - 1 - base) & 1) != 0 ? 1 : -1;
}

void add_cell(Normal& normal, std::size_t k, std::uint32_t code, double mass, double sum) {
  for (std::size_t j = 0; j < k; ++j) {
    const double sj = sign_of(code, j, k);
    normal.right[j] += sj * sum;
    for (std::size_t l = 0; l < k; ++l) normal.gram[j][l] += sj * sign_of(code, l, k) * mass;
  }
}

/// bases += a solution of gram * step = right - gram * bases, by elimination; directions that the code does not
/// determine are left as they are.
void solve(Normal normal, std::span<double> bases) {
  const std::size_t k = bases.size();
  std::array<double, kMaxBases> rest = normal.right, step{};
  for (std::size_t j = 0; j < k; ++j)
    for (std::size_t l = 0; l < k; ++l) rest[j] -= normal.gram[j][l] * bases[l];
  std::array<bool, kMaxBases> fixed{};
  const double least = 1e-10 * normal.gram[0][0];
  for (std::size_t p = 0; p < k; ++p) {
    fixed[p] = !(normal.gram[p][p] > least);
    if (fixed[p]) continue;
    for (std::size_t j = p + 1; j < k; ++j) {
      const double factor = normal.gram[j][p] / normal.gram[p][p];
      for (std::size_t l = p; l < k; ++l) normal.gram[j][l] -= factor * normal.gram[p][l];
      rest[j] -= factor * rest[p];
    }
  }
  for (std::size_t p = k; p-- > 0;) {
    if (fixed[p]) continue;
    double value = rest[p];
    for (std::size_t l = p + 1; l < k; ++l) value -= normal.gram[p][l] * step[l];
    step[p] = value / normal.gram[p][p];
  }
  for (std::size_t j = 0; j < k; ++j) bases[j] = std::fabs(bases[j] + step[j]);
}

void descend(std::span<double> bases) {
  for (double& base : bases) base = std::fabs(base);
  std::ranges::sort(bases, std::greater<>());
}

/// The points up to and including `threshold`.
std::size_t points_to(const Magnitudes& y, double threshold) {
  return static_cast<std::size_t>(std::ranges::upper_bound(y.point, threshold) - y.point.begin());
}

/// Calls cell(sum, first, last) for the points nearest to each of the sums, in order.
template <class Cell>
void for_cells(const Magnitudes& y, std::span<const SignedSum> sums, const Cell& cell) {
  std::size_t first = 0;
  for (std::size_t c = 0; c < sums.size(); ++c) {
    const std::size_t last =
        c + 1 == sums.size() ? y.size() : std::max(first, points_to(y, (sums[c].level + sums[c + 1].level) / 2));
    if (first < last) cell(sums[c], first, last);
    first = last;
  }
}

/// What bases cost by the prefix sums of their cells.
double cell_loss(const Magnitudes& y, const SignedSum& sum, std::size_t first, std::size_t last) {
  const double mass = y.mass[last] - y.mass[first], total = y.sum[last] - y.sum[first];
  return sum.level * (sum.level * mass - 2 * total);
}

/// Greedy bases of |r| from bases[first] on.
void greedy_from(const Magnitudes& y, std::size_t first, std::span<double> bases, std::vector<double>& residual) {
  const double whole = y.mass.back();
  for (std::size_t i = first; i < bases.size(); ++i) {
    double sum = 0;
    for (std::size_t p = 0; p < residual.size(); ++p) sum += (y.mass[p + 1] - y.mass[p]) * residual[p];
    bases[i] = sum / whole;
    for (double& r : residual) r = std::fabs(r - bases[i]);
  }
}

/// The two exact bases, and greedy ones for what they leave.
void extended_bases(const Magnitudes& y, std::span<double> bases, std::vector<double>& residual) {
  const TwoMeans two = two_means(y);
  bases[0] = (two.high + two.low) / 2;
  if (bases.size() == 1) return;
  bases[1] = (two.high - two.low) / 2;
  residual.resize(y.size());
  for (std::size_t p = 0; p < residual.size(); ++p)
    residual[p] = std::min(std::fabs(y.point[p] - two.low), std::fabs(y.point[p] - two.high));
  greedy_from(y, 2, bases, residual);
}

/// The best bases known for normal and for Laplace weights with mean magnitude 1, k = 3 .. 8 (the best of 60 to 400
/// random starts on the densities): sums of unequal bases come much nearer to the optimal levels than greedy ones lead
/// to (normal, k = 4: loss 0.00989, from greedy ones 0.01144, optimal levels 0.00950).
using Shape = std::array<double, kMaxBases>;
constexpr std::array<Shape, 6> kNormal{{{1.2374, 0.9368, 0.5651},
                                        {1.4146, 0.8884, 0.6977, 0.3708},
                                        {1.2919, 1.2069, 0.6274, 0.4696, 0.3095},
                                        {1.0952, 1.0507, 1.0048, 0.5266, 0.3948, 0.2611},
                                        {1.7490, 1.0426, 0.8764, 0.6200, 0.5398, 0.3976, 0.1975},
                                        {1.4410, 1.1768, 0.8467, 0.6299, 0.3473, 0.2929, 0.2336, 0.1227}}};
constexpr std::array<Shape, 6> kLaplace{{{1.8995, 1.4374, 0.8315},
                                         {1.8914, 1.6324, 1.3367, 0.8670},
                                         {1.9246, 1.7739, 1.6242, 1.3386, 0.8550},
                                         {2.1953, 2.0488, 1.5733, 1.1013, 0.7863, 0.3933},
                                         {2.4787, 1.8745, 1.5563, 1.5132, 1.2435, 1.0835, 1.0044},
                                         {2.4265, 2.3668, 2.1019, 1.9658, 1.7249, 1.5560, 0.7467, 0.2139}}};

double refine_from(const Magnitudes& y, std::span<double> bases) {
  descend(bases);
  std::array<double, kMaxBases> before{};
  double loss = refine_step(y, bases);  // bases are now one step ahead of the loss
  for (int step = 1; step < kMaxSteps; ++step) {
    std::ranges::copy(bases, before.begin());
    const double next = refine_step(y, bases);
    if (!(next < loss)) {  // rounding: the step before was the last
      std::ranges::copy_n(before.begin(), static_cast<std::ptrdiff_t>(bases.size()), bases.begin());
      return loss_of_bases(y, bases);
    }
    if (loss - next <= kStill * y.energy) return loss_of_bases(y, bases);
    loss = next;
  }
  return loss_of_bases(y, bases);
}

}  // namespace

void magnitude_sums(std::span<const double> bases, std::span<SignedSum> sums) {
  const std::size_t k = bases.size();
  const std::uint32_t all = (std::uint32_t{1} << k) - 1;
  for (std::uint32_t low = 0; low < sums.size(); ++low) {
    std::uint32_t code = low | std::uint32_t{1} << (k - 1);
    double level = 0;
    for (std::size_t j = 0; j < k; ++j) level += sign_of(code, j, k) * bases[j];
    if (level < 0) level = -level, code ^= all;
    sums[low] = {level, code};
  }
  std::ranges::sort(sums, [](const SignedSum& a, const SignedSum& b) {
    return a.level < b.level || (a.level == b.level && a.code > b.code);
  });
}

void greedy_bases(const Magnitudes& y, std::span<double> bases, std::vector<double>& residual) {
  residual.assign(y.point.begin(), y.point.end());
  greedy_from(y, 0, bases, residual);
}

double refine_step(const Magnitudes& y, std::span<double> bases) {
  const std::size_t k = bases.size();
  std::array<SignedSum, kMaxSums> room;
  const auto sums = std::span(room).first(std::size_t{1} << (k - 1));
  magnitude_sums(bases, sums);
  Normal normal;
  double loss = y.energy;
  for_cells(y, sums, [&](const SignedSum& sum, std::size_t first, std::size_t last) {
    loss += cell_loss(y, sum, first, last);
    add_cell(normal, k, sum.code, y.mass[last] - y.mass[first], y.sum[last] - y.sum[first]);
  });
  solve(normal, bases);
  descend(bases);
  return std::max(loss, 0.0);
}

double refine_bases(const Magnitudes& y, std::span<double> bases) { return refine_from(y, bases); }

double best_refined(const Magnitudes& y, std::span<double> bases, std::vector<double>& residual) {
  std::array<Shape, 4> starts{};
  const std::size_t k = bases.size(), count = k < 3 ? 2 : starts.size();
  const auto start = [&](std::size_t s) { return std::span(starts[s]).first(k); };
  greedy_bases(y, start(0), residual);
  extended_bases(y, start(1), residual);
  if (k >= 3) {
    const double mean = one_bit(y);
    for (std::size_t j = 0; j < k; ++j) start(2)[j] = mean * kNormal[k - 3][j], start(3)[j] = mean * kLaplace[k - 3][j];
  }
  double best = 0;
  for (std::size_t s = 0; s < count; ++s) {
    const double loss = refine_bases(y, start(s));
    if (s > 0 && !(loss < best)) continue;
    best = loss;
    std::ranges::copy(start(s), bases.begin());
  }
  return best;
}

double loss_of_bases(const Magnitudes& y, std::span<const double> bases) {
  std::array<SignedSum, kMaxSums> room;
  const auto sums = std::span(room).first(std::size_t{1} << (bases.size() - 1));
  magnitude_sums(bases, sums);
  double loss = y.energy;
  for_cells(y, sums,
            [&](const SignedSum& sum, std::size_t first, std::size_t last) { loss += cell_loss(y, sum, first, last); });
  return std::max(loss, 0.0);
}

std::vector<double> nearest_thresholds(std::span<const double> bases) {
  std::array<SignedSum, kMaxSums> room;
  const auto sums = std::span(room).first(std::size_t{1} << (bases.size() - 1));
  magnitude_sums(bases, sums);
  std::vector<double> thresholds;
  for (std::size_t c = 0; c + 1 < sums.size(); ++c) thresholds.push_back((sums[c].level + sums[c + 1].level) / 2);
  return thresholds;
}

std::vector<std::uint32_t> straddled(const Magnitudes& y, std::span<const double> thresholds) {
  std::vector<std::uint32_t> points;
  for (std::size_t i = 0; i < y.low.size(); ++i) {
    if (!(y.low[i] < y.high[i])) continue;
    const auto above = std::ranges::upper_bound(thresholds, y.low[i]);
    if (above != thresholds.end() && *above <= y.high[i]) points.push_back(static_cast<std::uint32_t>(i));
  }
  return points;
}

}  // namespace lmq
