#include "lmq/h5filter/decode_chunk.hpp"

#include <cstdlib>
#include <cstring>

#include "lmq/base/math.hpp"
#include "lmq/codec/record.hpp"

namespace lmq {
namespace {
/// HDF5 has no larger chunks; a damaged file may ask for any number.
constexpr std::uint64_t kMaxChunkBytes = 0xFFFFFFFF;

std::byte* decode(std::span<const std::byte> record, std::uint64_t chunk_bytes, std::size_t& bytes) {
  const std::uint64_t weights = read_record_header(record, "chunk").count;
  std::uint64_t needed = 0;
  if (!checked_mul(weights, sizeof(float), needed)) return nullptr;
  if (chunk_bytes == 0) chunk_bytes = needed;
  if (needed > chunk_bytes || chunk_bytes > kMaxChunkBytes) return nullptr;
  bytes = narrow<std::size_t>(chunk_bytes, "bytes of a chunk");
  auto* buffer = static_cast<std::byte*>(std::malloc(bytes > 0 ? bytes : 1));
  if (buffer == nullptr) return nullptr;
  try {
    const std::span values(reinterpret_cast<float*>(buffer), static_cast<std::size_t>(weights));
    decode_record_values(record, values, "chunk");
    std::memset(buffer + needed, 0, bytes - needed);
  } catch (...) {
    std::free(buffer);
    throw;
  }
  return buffer;
}

}  // namespace

std::byte* decode_chunk(std::span<const std::byte> record, std::uint64_t chunk_bytes, std::size_t& bytes) noexcept {
  try {
    return decode(record, chunk_bytes, bytes);
  } catch (...) {
    return nullptr;
  }
}

}  // namespace lmq
