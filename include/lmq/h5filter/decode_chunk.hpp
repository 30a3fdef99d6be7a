#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

namespace lmq {

/// One chunk as HDF5 wants it: the record's weights as floats, then zeros up to `chunk_bytes` (a chunk that reaches
/// over the edge of its dataset has fewer weights than room). chunk_bytes 0: as many bytes as the record has weights.
/// Returns a buffer of malloc and its size, or nullptr when the record is damaged or does not fit. Never throws.
[[nodiscard]] std::byte* decode_chunk(std::span<const std::byte> record, std::uint64_t chunk_bytes,
                                      std::size_t& bytes) noexcept;

}  // namespace lmq
