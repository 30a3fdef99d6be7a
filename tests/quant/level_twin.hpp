#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "methods/stochastic/level_sums.hpp"
#include "partition_twin.hpp"

// Slow twins for the tests of stochastic levels.
namespace lmq::twin {

/// Sum of w (b - x)(x - a) over the points between two of them, by definition.
inline Wide cell_variance(std::span<const double> x, std::span<const double> w, std::size_t a, std::size_t b) {
  Wide sum = 0;
  for (std::size_t i = a + 1; i < b; ++i) {
    const Wide v = Wide{x[i]};
    sum += (w.empty() ? Wide{1} : Wide{w[i]}) * (Wide{x[b]} - v) * (v - Wide{x[a]});
  }
  return sum;
}

inline double variance_of(std::span<const double> x, std::span<const double> w, std::span<const std::uint32_t> path) {
  Wide sum = 0;
  for (std::size_t t = 1; t < path.size(); ++t)
    if (path[t] > path[t - 1]) sum += cell_variance(x, w, path[t - 1], path[t]);
  return static_cast<double>(sum);
}

/// [s] least variance of s levels, 2 <= s <= most: the quadratic programme (O(most m^2) after O(m^2) sums), 113-bit
/// numbers.
inline std::vector<double> best_variances(std::span<const double> x, std::span<const double> w, std::size_t most) {
  const std::size_t m = x.size();
  std::vector<Wide> A(m), B(m), G(m), before(m), now(m);
  for (std::size_t i = 0; i < m; ++i) {
    const Wide weight = w.empty() ? Wide{1} : Wide{w[i]}, v = Wide{x[i]} - Wide{x[m / 2]};
    A[i] = weight + (i > 0 ? A[i - 1] : 0);
    B[i] = weight * v + (i > 0 ? B[i - 1] : 0);
    G[i] = weight * v * v + (i > 0 ? G[i - 1] : 0);
  }
  const auto cost = [&](std::size_t k, std::size_t j) {
    if (j <= k + 1) return Wide{0};
    const Wide a = Wide{x[k]} - Wide{x[m / 2]}, b = Wide{x[j]} - Wide{x[m / 2]};
    const Wide c = (a + b) * (B[j] - B[k]) - (G[j] - G[k]) - a * b * (A[j] - A[k]);
    return c > 0 ? c : Wide{0};
  };
  std::vector<double> best(most + 1, std::numeric_limits<double>::infinity());
  for (std::size_t j = 0; j < m; ++j) before[j] = cost(0, j);
  for (std::size_t s = 2; s <= most; ++s) {
    best[s] = static_cast<double>(before[m - 1]);
    for (std::size_t j = 0; j < m; ++j) {
      now[j] = before[j];
      for (std::size_t k = 0; k < j; ++k) now[j] = std::min(now[j], before[k] + cost(k, j));
    }
    std::swap(before, now);
  }
  return best;
}

/// Least variance over every choice of s of the points that keeps the first and the last.
inline double brute_levels(std::span<const double> x, std::span<const double> w, std::size_t s) {
  const std::size_t m = x.size();
  double best = std::numeric_limits<double>::infinity();
  for (std::uint32_t inner = 0; inner < (1u << (m > 2 ? m - 2 : 0)); ++inner) {
    std::vector<std::uint32_t> path{0};
    for (std::uint32_t i = 1; i + 1 < m; ++i)
      if ((inner >> (i - 1) & 1) != 0) path.push_back(i);
    path.push_back(static_cast<std::uint32_t>(m - 1));
    if (path.size() <= s) best = std::min(best, variance_of(x, w, path));
  }
  return best;
}

inline LevelSums line_of(std::span<const double> x, std::span<const double> w) {
  LevelSums line;
  for (std::size_t i = 0; i < x.size(); ++i) line.add({x[i], x[i], w.empty() ? 1.0 : w[i], x[i], 0, 0});
  line.finish();
  return line;
}

/// The same points in runs of `length`, of which only sums are known; runs in `open` are single points.
inline LevelSums binned_line(std::span<const double> x, std::span<const double> w, std::size_t length,
                             std::span<const std::uint32_t> open, std::vector<std::size_t>& begin) {
  LevelSums line;
  begin.clear();
  for (std::size_t i = 0; i < x.size(); i += length) {
    const std::size_t end = std::min(i + length, x.size());
    const bool single = std::ranges::binary_search(open, static_cast<std::uint32_t>(i));
    for (std::size_t at = i; at < end; at = single ? at + 1 : end) {
      const std::size_t last = single ? at : end - 1;
      ValueBin bin{x[at], x[last], 0, x[at], 0, 0};
      for (std::size_t k = at; k <= last; ++k) {
        const double weight = w.empty() ? 1.0 : w[k], d = x[k] - x[at];
        bin.mass += weight, bin.first += weight * d, bin.second += weight * d * d;
      }
      begin.push_back(i);
      line.add(bin);
    }
  }
  line.finish();
  return line;
}

}  // namespace lmq::twin
