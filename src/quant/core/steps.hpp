#pragma once
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "lmq/quant/importance.hpp"

namespace lmq {

/// One row's part, from `column` on.
inline void outer_run(const Importance& importance, std::uint64_t row, std::size_t column,
                      std::span<float> out) noexcept {
  const std::uint64_t block =
      importance.block_rows == 0 ? 0 : (importance.first_row % importance.block_rows + row) / importance.block_rows;
  const float* const values = importance.values.data() + block * importance.length + column;
  const float factor = importance.rows.empty() ? 1.0f : importance.rows[static_cast<std::size_t>(row)];
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = factor * values[i];
}

/// Importance of `out.size()` weights from weight `begin` of the window on, as floats: all kinds but none.
inline void importance_at(const Importance& importance, std::uint64_t begin, std::span<float> out) noexcept {
  if (importance.kind == Importance::Kind::weights) {
    std::ranges::copy(importance.values.subspan(begin, out.size()), out.begin());
    return;
  }
  const bool outer = !importance.one_row();
  const std::size_t cols = outer ? static_cast<std::size_t>(importance.length) : importance.values.size();
  const std::uint64_t at = importance.first_column % cols + begin;
  std::uint64_t row = at / cols;
  auto column = static_cast<std::size_t>(at % cols);
  for (std::size_t done = 0; done < out.size(); column = 0, ++row) {
    const std::size_t run = std::min(cols - column, out.size() - done);
    if (outer)
      outer_run(importance, row, column, out.subspan(done, run));
    else
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
