#include "hard_concrete.hpp"

#include <algorithm>

#include "lmq/kernels/rate_cells.hpp"
#include "plain_exp.hpp"

namespace lmq {
namespace {
constexpr double kGamma = -0.1, kZeta = 1.1, kTau = 2.0 / 3;

double plain_ln(double x) noexcept { return plain_log2(x) * 0.69314718055994530942; }
}  // namespace

double logit_of(double draw) noexcept { return plain_ln(draw) - plain_ln(1 - draw); }

Gate hard_concrete(double phi, double draw) noexcept { return hard_concrete_of(phi, logit_of(draw)); }

Gate hard_concrete_of(double phi, double logit) noexcept {
  const double s = plain_sigmoid((logit + phi) / kTau);
  const double value = s * (kZeta - kGamma) + kGamma;
  if (value <= 0) return {0, 0};
  if (value >= 1) return {1, 0};
  return {value, (kZeta - kGamma) * s * (1 - s) / kTau};
}

double final_gate(double phi) noexcept {
  return std::min(std::max(plain_sigmoid(phi) * (kZeta - kGamma) + kGamma, 0.0), 1.0);
}

Gate open_probability(double phi) noexcept {
  static const double shift = kTau * plain_ln(-kGamma / kZeta);
  const double p = plain_sigmoid(phi - shift);
  return {p, p * (1 - p)};
}

double phi_of_drop(double drop) noexcept {
  return plain_ln(1 - drop) - plain_ln(drop) + kTau * plain_ln(-kGamma / kZeta);
}

}  // namespace lmq
