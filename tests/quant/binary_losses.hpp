#pragma once
// Losses of binary codes as parts of the energy, for what compares them.
#include "methods/binary/binary_fit.hpp"

namespace lmq::binary_losses {

/// Squared error of a code of these bases as a part of the energy; of the best 2 bits, of ternary, of k greedy bases.
inline double relative(const Magnitudes& y, std::vector<double> bases) { return loss_of_bases(y, bases) / y.energy; }
inline double two_loss(const Magnitudes& y) {
  const TwoMeans two = two_means(y);
  return relative(y, {(two.high + two.low) / 2, (two.high - two.low) / 2});
}
inline double ternary_loss(const Magnitudes& y) {
  const double t = top_mean(y);
  return relative(y, {t / 2, t / 2});
}
inline double greedy_loss(const Magnitudes& y, std::size_t k, std::vector<double>* bases = nullptr) {
  std::vector<double> v(k), residual;
  greedy_bases(y, v, residual);
  double loss = y.energy;
  for (const double base : v) loss -= y.mass.back() * base * base;
  if (bases) *bases = v;
  return loss / y.energy;
}

}  // namespace lmq::binary_losses
