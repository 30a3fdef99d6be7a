#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lmq/base/math.hpp"
#include "lmq/codec/record.hpp"
#include "lmq/kernels/huffman.hpp"
#include "lmq/kernels/rans.hpp"

namespace lmq {

/// Constants of the record (docs/format.md, section 2).
inline constexpr std::uint32_t kRecordMagic = 0x52514D4C;  // "LMQR"
inline constexpr std::uint8_t kRecordVersion = 3;
inline constexpr std::size_t kHeaderBytes = 40, kChecksumBytes = 8;
inline constexpr std::uint64_t kBlockCodes = 1ULL << 19;

[[nodiscard]] constexpr std::uint64_t block_count(std::uint64_t codes) noexcept { return ceil_div(codes, kBlockCodes); }
[[nodiscard]] constexpr std::uint64_t block_codes(std::uint64_t codes, std::uint64_t block) noexcept {
  return block + 1 < block_count(codes) ? kBlockCodes : codes - block * kBlockCodes;
}
[[nodiscard]] constexpr std::uint64_t number_bytes(LevelType type) noexcept { return type == LevelType::f16 ? 2 : 4; }

/// Most codes of a rans block's tail (docs/format.md, section 2.4).
inline constexpr std::size_t kMaxTail = 4096;

/// Where decoding a rans block starts.
struct RansStart {
  RansCursor cursor;
  std::size_t tail = 0;  ///< codes at the block's end that lie in the states where its coding began
};

/// A record taken apart, everything checked but the coded payload itself.
struct RecordParts {
  RecordHeader header;
  std::vector<float> book;
  RansModel model;                                 ///< rans with more than one code
  HuffmanModel words;                              ///< huffman with more than one code
  std::vector<std::span<const std::byte>> blocks;  ///< huffman: one per block; fixed: one; planes: one per plane
  std::vector<RansStart> starts;                   ///< rans: one per block
};
/// A record without its checksum, which is right; Errc::malformed otherwise.
[[nodiscard]] std::span<const std::byte> check_record(std::span<const std::byte> record, const std::string& source);
/// Errc::malformed with the place otherwise.
[[nodiscard]] RecordParts open_record(std::span<const std::byte> record, const std::string& source);

}  // namespace lmq
