#pragma once
#include <cstddef>
#include <cstring>
#include <random>
#include <vector>

namespace samples {
/// Mean of `draws` outer products of correlated normal vectors.
inline std::vector<double> covariance(std::size_t size, std::size_t draws, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::vector<double> matrix(size * size, 0), x(size);
  for (std::size_t t = 0; t < draws; ++t) {
    double before = 0;
    for (double& value : x) value = before = 0.8 * before + normal(random);
    for (std::size_t i = 0; i < size; ++i)
      for (std::size_t j = 0; j < size; ++j) matrix[i * size + j] += x[i] * x[j] / static_cast<double>(draws);
  }
  return matrix;
}

template <class Number>
bool same_bits(const std::vector<Number>& a, const std::vector<Number>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(Number)) == 0);
}

}  // namespace samples
