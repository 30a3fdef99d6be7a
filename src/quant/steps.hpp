#pragma once
#include <algorithm>
#include <bit>
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
  constexpr double kMagic = 0x1p52;  // adding it leaves the rounded number in the mantissa, below 2^51
  const double scale = 1 / quantum;  // exact: a power of two
  bool large = false;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const double wanted = double{importance[i]} * scale;
    const std::uint64_t rounded = std::bit_cast<std::uint64_t>(wanted + kMagic) - std::bit_cast<std::uint64_t>(kMagic);
    steps[i] = rounded + (rounded == 0);
    large |= wanted >= 0x1p51;
  }
  if (!large) return;
  for (std::size_t i = 0; i < steps.size(); ++i)
    if (const double wanted = double{importance[i]} * scale; wanted >= 0x1p51)  // whole: a float holds 24 bits
      steps[i] = static_cast<std::uint64_t>(std::min(wanted, 0x1p62));
}

}  // namespace lmq
