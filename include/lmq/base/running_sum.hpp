#pragma once
#include <cmath>

namespace lmq {

/// A running sum and what rounding took from it (Neumaier).
struct Running {
  double sum = 0, lost = 0;
  void add(double x) noexcept {
    const double next = sum + x, part = next - sum;
    lost += (sum - (next - part)) + (x - part);
    sum = next;
  }
  [[nodiscard]] double total() const noexcept { return sum + lost; }
};

using Two = double __attribute__((vector_size(2 * sizeof(double))));

/// Two running sums side by side.
struct RunningPair {
  Two sum = {}, lost = {};
  void add(Two x) noexcept {
    const Two next = sum + x, part = next - sum;
    lost += (sum - (next - part)) + (x - part);
    sum = next;
  }
  [[nodiscard]] Two total() const noexcept { return sum + lost; }
};

}  // namespace lmq
