#pragma once
#include <cstdint>

#include "lmq/plan/plan.hpp"

namespace lmq {

/// Bytes that a tensor of `rows` x `cols` bell-shaped weights has at the least when quantized: a record's header,
/// numbers of its codebooks, and its codes, of fixed width or entropy coded (3/4 of that for equal steps, 15/16 and
/// tables for codebooks). A method that chooses its number of levels counts as one of 2, and a codebook of the whole
/// model as nothing. 0 where there is no such number (rank-1 factors, layers).
[[nodiscard]] std::uint64_t least_quantized_bytes(const QuantSpec& spec, std::uint64_t rows, std::uint64_t cols);

}  // namespace lmq
