#pragma once
#include <cstddef>
#include <cstdint>

namespace lmq {

// The vector twins behind NearestLevel: whole arrays, the tail included. in: any address.
/// codes[i] = number of thresholds < signed key of the pattern in[i].
void count_thresholds16(const std::byte* in, std::size_t count, const std::int16_t* thresholds, std::size_t levels,
                        std::uint8_t* codes) noexcept;
/// codes[i] = number of boundaries <= in[i].
void count_boundaries32(const std::byte* in, std::size_t count, const float* boundaries, std::size_t levels,
                        std::uint8_t* codes) noexcept;

}  // namespace lmq
