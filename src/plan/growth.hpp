#pragma once
#include <cstdint>

#include "lmq/plan/plan.hpp"

namespace lmq {

/// Bytes that a tensor of `rows` x `cols` weights has at the least when quantized: numbers of its codebooks, and 3/4 of
/// the bits that codes of fixed width would have (what entropy coding of bell-shaped weights leaves). A method that
/// chooses its number of levels counts as one of 2, and a codebook of the whole model as nothing. 0 where there is no
/// such bound (rank-1 factors).
[[nodiscard]] std::uint64_t least_quantized_bytes(const QuantSpec& spec, std::uint64_t rows, std::uint64_t cols);

}  // namespace lmq
