#pragma once
#include <cstdint>
#include <optional>
#include <span>

#include "lmq/base/tensor.hpp"
#include "lmq/quant/importance.hpp"

namespace lmq {

/// Errors of one unit against its source; deterministic (16 lanes of doubles per fixed block, blocks in order).
struct UnitStats {
  double squared_error = 0;   ///< sum (w - q)^2
  double weighted_error = 0;  ///< sum importance * (w - q)^2; equals squared_error without importance
  double energy = 0;          ///< sum w^2
  double largest_error = 0;   ///< max |w - q|
};

/// Errors of decoded values against a window of the source: exactly what quantize_unit recorded for the same values.
[[nodiscard]] UnitStats measure_error(const TensorView& view, std::span<const float> decoded,
                                      const Importance& importance);

/// Index in the window of the first NaN or infinity of a float type, or nothing.
[[nodiscard]] std::optional<std::uint64_t> first_nonfinite(const TensorView& view);

}  // namespace lmq
