#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>

#include "lmq/kernels/rate_cells.hpp"

namespace lmq {

// log2(x) = whole + log2(m), m in [sqrt(1/2), sqrt(2)): log2(m) = 2 / ln 2 * (y + y^3 / 3 + ...), y = (m - 1) / (m +
// 1), |y| < .172; the first term left out is below 6e-15 of y.
inline constexpr std::uint64_t kLogOne = 0x3FF0000000000000;
inline constexpr std::uint64_t kLogOffset = 0x3FE6A09E667F3BCD - kLogOne;  // pattern of sqrt(1/2), its exponent at 0
inline constexpr std::uint64_t kLogMagic = 0x4330000000000000;             // or a whole number: 2^52 + that number
inline constexpr double kLogMagicValue = 0x1p52;
inline constexpr double kLogBias = 1023;
inline constexpr std::size_t kLogTerms = 9;
inline constexpr double kLogSeries[kLogTerms] = {2.8853900817779268,  0.9617966939259756,  0.5770780163555853,
                                                 0.41219858311113245, 0.32059889797532520, 0.26230818925253881,
                                                 0.22195308321368667, 0.19235933878519512, 0.16972882833987805};

/// A number taken apart: x = m * 2^whole.
struct LogParts {
  double m, whole;
  explicit LogParts(double x) noexcept {
    const auto bits = std::bit_cast<std::uint64_t>(x);
    const std::uint64_t power = (bits - kLogOffset) >> 52;
    m = std::bit_cast<double>(bits - (power << 52) + kLogOne);
    whole = std::bit_cast<double>(power | kLogMagic) - (kLogMagicValue + kLogBias);
  }
  [[nodiscard]] double log2(double y) const noexcept {
    const double y2 = y * y;
    double sum = kLogSeries[kLogTerms - 1];
    for (std::size_t k = kLogTerms - 1; k-- > 0;) sum = sum * y2 + kLogSeries[k];
    return whole + y * sum;
  }
};

inline double log2_of(double x) noexcept {
  const LogParts parts(x);
  return parts.log2((parts.m - 1) / (parts.m + 1));
}

/// One division serves both the mean and the logarithm.
inline double cell_price(const CellColumns& edges, const CellPrice& price, std::size_t i, std::size_t j,
                         bool pinned) noexcept {
  const double dn = edges.n[j] - edges.n[i], dc = edges.c[j] - edges.c[i];
  const LogParts parts(dn * price.inverse_total);
  const double up = parts.m + 1, down = parts.m - 1;
  double error = dc, y = 0;
  if (pinned) {
    y = down / up;
  } else {
    const double da = edges.a[j] - edges.a[i], db = edges.b[j] - edges.b[i], r = 1 / (da * up);
    y = down * da * r;
    error = dc - db * db * up * r;
  }
  return (error > 0 ? error : 0.0) - price.lambda * dn * parts.log2(y);
}

}  // namespace lmq
