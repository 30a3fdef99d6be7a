#pragma once
#include <cstddef>

#include "lmq/kernels/histogram.hpp"

namespace lmq {

/// Adds floats at any address to cells [65536] by the upper half of their key; their extremes. At most 2^24 - 1 between
/// two times the cells are emptied.
KeyExtremes add_moments_plainly(const std::byte* floats, std::size_t count, MomentHistogram::Cell* cells) noexcept;
KeyExtremes add_moments_vector(const std::byte* floats, std::size_t count, MomentHistogram::Cell* cells) noexcept;

}  // namespace lmq
