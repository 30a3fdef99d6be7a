#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "layout.hpp"
#include "lmq/codec/model.hpp"
#include "lmq/kernels/huffman.hpp"

namespace lmq {

/// Codes of a record as Huffman words (docs/format.md, section 2.4.1).
struct HuffmanPayload {
  HuffmanModel model;
  std::vector<std::byte> bytes;    ///< lengths, sizes of blocks, blocks
  std::uint64_t stream_bytes = 0;  ///< of the words alone
};

/// Cheapest words for these counts; at least two of them are above 0.
[[nodiscard]] HuffmanModel fit_huffman(const CodeCounts& counts) noexcept;
/// Bytes that the payload cannot stay below: all but what is left over in the streams' last bytes.
[[nodiscard]] std::uint64_t least_huffman_bytes(const CodeCounts& counts, const HuffmanModel& model,
                                                std::uint64_t codes) noexcept;
[[nodiscard]] HuffmanPayload encode_huffman(std::span<const Code> codes, const HuffmanModel& model);

/// Lengths and blocks from a record; Errc::malformed unless they keep the rules.
[[nodiscard]] HuffmanModel read_huffman_model(ByteReader& in, unsigned bits, unsigned symbols);
void take_huffman_blocks(RecordParts& parts, ByteReader& in);
/// The streams of a block of so many codes (take_huffman_blocks has checked that they fit).
[[nodiscard]] HuffmanCursor huffman_cursor(std::span<const std::byte> block, std::uint64_t codes) noexcept;

}  // namespace lmq
