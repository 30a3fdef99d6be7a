#pragma once
#include <cmath>
#include <random>
#include <vector>

namespace samples {

/// A layer's weights [rows][cols], and the Gram matrix of inputs that are correlated: neighbours by .9^distance with
/// four channels eight times larger.
struct Layer {
  std::size_t rows = 0, cols = 0;
  std::vector<float> x, gram;
};
inline Layer correlated_layer(std::size_t rows, std::size_t cols, unsigned seed, bool heavy = false) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::student_t_distribution<double> tails(4);
  Layer layer{rows, cols, {}, {}};
  for (std::size_t i = 0; i < rows * cols; ++i)
    layer.x.push_back(static_cast<float>(0.02 * (heavy ? tails(random) : normal(random))));
  std::vector<double> scale(cols, 1.0);
  for (std::size_t k = 0; k < 4 && cols > 0; ++k) scale[(k * 37 + seed) % cols] = 8;
  for (std::size_t i = 0; i < cols; ++i)
    for (std::size_t j = 0; j < cols; ++j)
      layer.gram.push_back(static_cast<float>(std::pow(0.9, std::abs(static_cast<double>(i) - static_cast<double>(j))) *
                                              scale[i] * scale[j]));
  return layer;
}

/// The same with a spectrum of 1 / i in random directions (Householder reflections of a diagonal).
inline Layer spectral_layer(std::size_t rows, std::size_t cols, unsigned seed, bool heavy = false) {
  Layer layer = correlated_layer(rows, cols, seed, heavy);
  std::mt19937 random(seed + 1000);
  std::normal_distribution<double> normal;
  std::vector<double> gram(cols * cols, 0.0), v(cols), gv(cols);
  for (std::size_t i = 0; i < cols; ++i) gram[i * cols + i] = 1.0 / static_cast<double>(i + 1);
  for (int reflection = 0; reflection < 12; ++reflection) {
    double square = 0;
    for (double& one : v) one = normal(random), square += one * one;
    for (double& one : v) one /= std::sqrt(square);
    double vgv = 0;
    for (std::size_t i = 0; i < cols; ++i) {
      gv[i] = 0;
      for (std::size_t j = 0; j < cols; ++j) gv[i] += gram[i * cols + j] * v[j];
      vgv += v[i] * gv[i];
    }
    for (std::size_t i = 0; i < cols; ++i)
      for (std::size_t j = 0; j < cols; ++j)
        gram[i * cols + j] += 4 * vgv * v[i] * v[j] - 2 * v[i] * gv[j] - 2 * gv[i] * v[j];
  }
  for (std::size_t i = 0; i < cols; ++i)
    for (std::size_t j = 0; j < cols; ++j)
      layer.gram[i * cols + j] = static_cast<float>((gram[i * cols + j] + gram[j * cols + i]) / 2);
  return layer;
}

/// e H e^T of all rows, H with a share of its mean diagonal added.
inline double loss_of(const Layer& layer, const std::vector<float>& values, double share) {
  double mean = 0, loss = 0;
  const std::size_t n = layer.cols;
  for (std::size_t c = 0; c < n; ++c) mean += double{layer.gram[c * n + c]} / static_cast<double>(n);
  for (std::size_t r = 0; r < layer.rows; ++r)
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t j = 0; j < n; ++j)
        loss += (double{values[r * n + i]} - double{layer.x[r * n + i]}) *
                (double{layer.gram[i * n + j]} + (i == j ? share * mean : 0)) *
                (double{values[r * n + j]} - double{layer.x[r * n + j]});
  return loss;
}

}  // namespace samples
