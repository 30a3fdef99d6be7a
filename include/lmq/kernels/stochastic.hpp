#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "lmq/base/dtype.hpp"
#include "lmq/base/quantized_unit.hpp"

namespace lmq {

/// Unbiased stochastic rounding to the two levels around each weight: the upper one with probability
/// (w - lower) / (upper - lower), to 2^-32; weights outside the levels get the outermost one.
/// levels   [1..256] finite, ascending, equal neighbours allowed
/// weights  bytes of codes.size() finite weights of `type`
/// key, first  weight i uses draw first + i of the stream (lmq/base/random.hpp)
void assign_stochastic(DType type, std::span<const std::byte> weights, std::span<const float> levels, std::uint64_t key,
                       std::uint64_t first, std::span<Code> codes) noexcept;

}  // namespace lmq
