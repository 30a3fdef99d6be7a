#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <vector>

// Slow twins and sources for the tests of optimal partitions.
namespace lmq::twin {

using Wide = __float128;

/// Weighted squared error of points i .. j-1 about their mean.
inline Wide cell_loss(std::span<const double> values, std::span<const double> weights, std::size_t i, std::size_t j) {
  Wide a = 0, b = 0, c = 0;
  for (std::size_t k = i; k < j; ++k) {
    const Wide w = weights.empty() ? Wide{1} : Wide{weights[k]}, v = Wide{values[k]} - Wide{values[i]};
    a += w, b += w * v, c += w * v * v;
  }
  const Wide loss = c - b * b / a;
  return loss > 0 ? loss : 0;
}

inline double loss_of(std::span<const double> values, std::span<const double> weights,
                      std::span<const std::uint32_t> ends) {
  Wide sum = 0;
  for (std::size_t t = 1; t < ends.size(); ++t) sum += cell_loss(values, weights, ends[t - 1], ends[t]);
  return static_cast<double>(sum);
}

/// [K] least loss of exactly K cells, K <= most: the plain O(K m^2) recurrence in 113-bit numbers.
inline std::vector<double> best_losses(std::span<const double> values, std::span<const double> weights,
                                       std::size_t most) {
  const std::size_t m = values.size();
  const Wide infinity = std::numeric_limits<double>::infinity();
  std::vector<Wide> A(m + 1), B(m + 1), C(m + 1), before(m + 1, infinity);
  for (std::size_t k = 0; k < m; ++k) {
    const Wide w = weights.empty() ? Wide{1} : Wide{weights[k]}, v = Wide{values[k]} - Wide{values[m / 2]};
    A[k + 1] = A[k] + w, B[k + 1] = B[k] + w * v, C[k + 1] = C[k] + w * v * v;
  }
  const auto cost = [&](std::size_t i, std::size_t j) {
    const Wide b = B[j] - B[i], loss = C[j] - C[i] - b * b / (A[j] - A[i]);
    return j > i + 1 && loss > 0 ? loss : Wide{0};
  };
  std::vector<double> best(most + 1, std::numeric_limits<double>::infinity());
  before[0] = 0;
  for (std::size_t cells = 1; cells <= most; ++cells) {
    std::vector<Wide> now(m + 1, infinity);
    for (std::size_t j = cells; j <= m; ++j)
      for (std::size_t i = cells - 1; i < j; ++i) now[j] = std::min(now[j], before[i] + cost(i, j));
    before = now;
    best[cells] = static_cast<double>(now[m]);
  }
  return best;
}

/// Least loss over every way to cut the points into at most `cells` intervals.
inline double brute_force(std::span<const double> values, std::span<const double> weights, std::size_t cells) {
  const std::size_t m = values.size();
  double best = std::numeric_limits<double>::infinity();
  for (std::uint32_t cuts = 0; cuts < (1u << (m - 1)); ++cuts) {
    std::vector<std::uint32_t> ends{0};
    for (std::uint32_t k = 1; k < m; ++k)
      if ((cuts >> (k - 1) & 1) != 0) ends.push_back(k);
    ends.push_back(static_cast<std::uint32_t>(m));
    if (ends.size() - 1 <= cells) best = std::min(best, loss_of(values, weights, ends));
  }
  return best;
}

enum class Source { normal, student, laplace, uniform, discrete, symmetric, clustered, dynamic, subnormal, outliers };
inline constexpr Source kSources[] = {Source::normal,    Source::student,   Source::laplace,   Source::uniform,
                                      Source::discrete,  Source::symmetric, Source::clustered, Source::dynamic,
                                      Source::subnormal, Source::outliers};

/// n floats of a source, not sorted. More than 40 lines: a case for each source.
inline std::vector<float> draw(Source source, std::size_t n, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  std::student_t_distribution<double> student(2.5);
  std::uniform_real_distribution<double> uniform(-1, 1);
  std::vector<float> x(n);
  for (std::size_t i = 0; i < n; ++i) {
    double v = 0;
    switch (source) {
      case Source::normal:
        v = 0.02 * normal(random);
        break;
      case Source::student:
        v = student(random);
        break;
      case Source::laplace:
        v = std::copysign(std::log(std::abs(uniform(random)) + 1e-300), uniform(random));
        break;
      case Source::uniform:
        v = uniform(random) + 3;
        break;
      case Source::discrete:
        v = std::round(8 * normal(random)) / 4;
        break;
      case Source::symmetric:
        v = i % 2 == 0 ? normal(random) : -double{x[i - 1]};
        break;
      case Source::clustered:
        v = std::round(3 * normal(random)) + 1e-5 * normal(random);
        break;
      case Source::dynamic:
        v = std::copysign(std::exp(30 * uniform(random)), uniform(random));
        break;
      case Source::subnormal:
        v = 1e-41 * normal(random);
        break;
      case Source::outliers:
        v = normal(random) * (random() % 50 == 0 ? 1e4 : 1);
        break;
    }
    x[i] = static_cast<float>(v);
  }
  return x;
}

/// The distinct values of floats, ascending, and how often (or with what weight) they occur.
struct Distinct {
  std::vector<double> values, weights;
};
inline Distinct distinct(std::vector<float> x, std::vector<float> weights = {}) {
  std::vector<std::size_t> order(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) order[i] = i;
  std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) { return x[a] < x[b]; });
  Distinct d;
  for (const std::size_t i : order) {
    const double w = weights.empty() ? 1.0 : double{weights[i]};
    if (!d.values.empty() && d.values.back() == double{x[i]})
      d.weights.back() += w;
    else
      d.values.push_back(x[i] + 0.0f), d.weights.push_back(w);
  }
  return d;
}

inline std::vector<float> random_weights(std::size_t n, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  std::vector<float> w(n);
  for (float& x : w) x = static_cast<float>(std::exp(1.5 * normal(random)));
  return w;
}

}  // namespace lmq::twin
