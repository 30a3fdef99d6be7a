#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>

namespace lmq {

inline constexpr double kMaxExponent = 700;  // beyond it e^x counts as e^700, below as e^-700

/// e^x to about 3e-16 of the result, |x| clamped to 700. Plain operations in a fixed order, so the same bits on every
/// machine, and free of branches and calls, so that compilers make vectors of it. x = whole * ln 2 + t, |t| <= ln 2 /
/// 2; the first term of the series left out is below 5e-18.
[[nodiscard]] inline double plain_exp(double x) noexcept {
  constexpr double kRound = 0x1.8p52;  // adding it rounds to a whole number and leaves that in the lowest bits
  constexpr double kLog2e = 0x1.71547652b82fep0, kLn2High = 0x1.62e42feep-1, kLn2Low = 0x1.a39ef35793c76p-33;
  x = std::min(std::max(x, -kMaxExponent), kMaxExponent);
  const double shifted = x * kLog2e + kRound, whole = shifted - kRound;
  const double t = (x - whole * kLn2High) - whole * kLn2Low;
  double sum = 1.0 / 6227020800;
  sum = sum * t + 1.0 / 479001600;
  sum = sum * t + 1.0 / 39916800;
  sum = sum * t + 1.0 / 3628800;
  sum = sum * t + 1.0 / 362880;
  sum = sum * t + 1.0 / 40320;
  sum = sum * t + 1.0 / 5040;
  sum = sum * t + 1.0 / 720;
  sum = sum * t + 1.0 / 120;
  sum = sum * t + 1.0 / 24;
  sum = sum * t + 1.0 / 6;
  sum = sum * t + 0.5;
  sum = sum * t + 1.0;
  sum = sum * t + 1.0;
  return std::bit_cast<double>(std::bit_cast<std::uint64_t>(sum) + (std::bit_cast<std::uint64_t>(shifted) << 52));
}

/// 1 / (1 + e^-u).
[[nodiscard]] inline double plain_sigmoid(double u) noexcept { return 1 / (1 + plain_exp(-u)); }

}  // namespace lmq
