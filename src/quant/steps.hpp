#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#include "lmq/quant/importance.hpp"

namespace lmq {

/// Importance of `out.size()` weights from weight `begin` of the window on, as floats: all of kind columns or weights.
inline void importance_at(const Importance& importance, std::uint64_t begin, std::span<float> out) noexcept {
  if (importance.kind == Importance::Kind::weights) {
    std::ranges::copy(importance.values.subspan(begin, out.size()), out.begin());
    return;
  }
  const std::size_t cols = importance.values.size();
  std::size_t column = static_cast<std::size_t>((importance.first_column + begin) % cols);
  for (std::size_t done = 0; done < out.size(); column = 0) {
    const std::size_t run = std::min(cols - column, out.size() - done);
    std::ranges::copy(importance.values.subspan(column, run), out.begin() + static_cast<std::ptrdiff_t>(done));
    done += run;
  }
}

/// Importance as integer steps of a quantum: max(1, round(h / quantum)), ties to even. h / quantum < 2^62.
inline void importance_steps(std::span<const float> importance, double quantum,
                             std::span<std::uint64_t> steps) noexcept {
  const double scale = 1 / quantum;  // exact: a power of two
  for (std::size_t i = 0; i < steps.size(); ++i)
    steps[i] = static_cast<std::uint64_t>(std::max(1LL, std::llrint(std::min(double{importance[i]} * scale, 0x1p62))));
}

}  // namespace lmq
