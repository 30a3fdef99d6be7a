#pragma once
#include "lmq/base/quantized_unit.hpp"

namespace lmq {

/// Stored numbers of the codebooks and order-0 entropy of the codes, in bits: what a unit costs, but for constants.
[[nodiscard]] double unit_bits(const QuantizedUnit& unit);
/// True when `a` has the lower Lagrangian: fewer bits + count / 2 * log2(error), the exchange rate of a bit a weight
/// against a factor of 4 in squared error.
[[nodiscard]] bool lower_lagrangian(const QuantizedUnit& a, double error_a, const QuantizedUnit& b, double error_b);

}  // namespace lmq
