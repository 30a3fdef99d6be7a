#pragma once

namespace lmq {

/// An unevaluated sum of two doubles, |low| <= ulp(high) / 2: about 106 bits. Plain arithmetic without fused
/// operations, so the same bits everywhere.
struct ExactSum {
  double high = 0, low = 0;

  [[nodiscard]] double value() const noexcept { return high + low; }

  /// a + b without error (Knuth).
  [[nodiscard]] static ExactSum of_sum(double a, double b) noexcept {
    const double sum = a + b, part = sum - a;
    return {sum, (a - (sum - part)) + (b - part)};
  }
  /// a * b without error (Dekker), as long as nothing over- or underflows.
  [[nodiscard]] static ExactSum of_product(double a, double b) noexcept {
    constexpr double kSplit = 0x1p27 + 1;
    const double p = a * b, ca = kSplit * a, cb = kSplit * b;
    const double ah = ca - (ca - a), al = a - ah, bh = cb - (cb - b), bl = b - bh;
    return {p, ((ah * bh - p) + ah * bl + al * bh) + al * bl};
  }
  [[nodiscard]] ExactSum operator+(ExactSum other) const noexcept {
    const ExactSum s = of_sum(high, other.high), t = of_sum(low, other.low);
    const ExactSum u = of_sum(s.high, s.low + t.high);
    return of_sum(u.high, u.low + t.low);
  }
  [[nodiscard]] ExactSum operator-() const noexcept { return {-high, -low}; }
  [[nodiscard]] ExactSum operator-(ExactSum other) const noexcept { return *this + -other; }
  [[nodiscard]] ExactSum operator*(double factor) const noexcept {
    const ExactSum p = of_product(high, factor);
    return of_sum(p.high, p.low + low * factor);
  }
};

}  // namespace lmq
