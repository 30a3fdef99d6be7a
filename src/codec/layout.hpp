#pragma once
#include <algorithm>
#include <bit>
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
/// Version 1 knew tables and grids, fixed width and rANS; a record is written in the least version that can say it.
inline constexpr std::uint8_t kRecordVersion = 2;
[[nodiscard]] constexpr std::uint8_t record_version(CodebookKind kind, CoderChoice coder) noexcept {
  return kind <= CodebookKind::grid && coder <= CoderChoice::rans ? 1 : 2;
}
inline constexpr std::size_t kHeaderBytes = 40, kChecksumBytes = 8;
inline constexpr std::uint64_t kBlockCodes = 1ULL << 19;

[[nodiscard]] constexpr std::uint64_t block_count(std::uint64_t codes) noexcept { return ceil_div(codes, kBlockCodes); }
[[nodiscard]] constexpr std::uint64_t block_codes(std::uint64_t codes, std::uint64_t block) noexcept {
  return block + 1 < block_count(codes) ? kBlockCodes : codes - block * kBlockCodes;
}
[[nodiscard]] constexpr std::uint64_t number_bytes(LevelType type) noexcept { return type == LevelType::f16 ? 2 : 4; }

/// The last codes of a rans block, which its lanes carry as they are in the 16 free bits of the states where coding
/// starts: code t of the tail lies in lane t % lanes from bit t / lanes * width on.
struct Tail {
  Tail(std::uint64_t codes, unsigned symbols)
      : lanes(rans_lanes(codes)),
        width(static_cast<unsigned>(std::bit_width(symbols - 1))),
        count(static_cast<std::size_t>(std::min<std::uint64_t>(codes, lanes * (16 / width)))) {}
  [[nodiscard]] unsigned shift(std::size_t t) const noexcept { return static_cast<unsigned>(t / lanes) * width; }
  std::size_t lanes;
  unsigned width;
  std::size_t count;  ///< codes in the tail
};
static_assert(kRansLow == 1U << 16);

/// A record taken apart, everything checked but the coded payload itself.
struct RecordParts {
  RecordHeader header;
  std::vector<float> book;
  RansModel model;                                 ///< rans with more than one code
  HuffmanModel words;                              ///< huffman with more than one code
  std::vector<std::span<const std::byte>> blocks;  ///< rans, huffman: one per block; fixed: one; planes: one per plane
};
/// Errc::malformed with the place otherwise.
[[nodiscard]] RecordParts open_record(std::span<const std::byte> record, const std::string& source);

}  // namespace lmq
