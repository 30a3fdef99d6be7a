#pragma once
#include <cstddef>
#include <cstdint>

namespace lmq {

// The vector twins behind StochasticLevel.
/// out[i] = draw32(key, first + i).
void draws_vector(std::uint64_t key, std::uint64_t first, std::size_t count, std::uint32_t* out) noexcept;
/// codes[i] += draws[i] < (weights[i] - low[codes[i]]) * scale[codes[i]], in double.
void round_up_vector(const float* weights, const std::uint32_t* draws, std::size_t count, const double* low,
                     const double* scale, std::uint8_t* codes) noexcept;

}  // namespace lmq
