#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace lmq {

/// Lengths of an optimal prefix code whose words have at most `most_bits` bits: minimises sum counts[s] * lengths[s].
/// counts   [1..256] a symbol of count 0 has no word, length 0; a single symbol has one of 1 bit
/// most_bits  1..32, no fewer than log2 of the symbols with a word
/// The result is a function of the arguments: among equal counts, earlier symbols have no shorter words than later
/// ones. Cost O(most_bits * n log n). Source: Larmore & Hirschberg 1990 (package-merge).
void huffman_lengths(std::span<const std::uint64_t> counts, unsigned most_bits,
                     std::span<std::uint8_t> lengths) noexcept;

/// Huffman codes over alphabets of 2..256 symbols in several streams, so that a processor decodes them side by side:
/// stream s of S holds the symbols s, s + S, s + 2S, ... Words are canonical (by length, then symbol), their first bit
/// the lowest one left in the stream's bytes; the bits left over in a stream's last byte are 0.
inline constexpr unsigned kHuffmanMaxBits = 12;
inline constexpr std::size_t kHuffmanMaxStreams = 8;

/// Streams of a run of so many symbols (part of the format).
[[nodiscard]] constexpr std::size_t huffman_streams(std::uint64_t symbols) noexcept {
  return symbols >= (1U << 13) ? kHuffmanMaxStreams : 1;
}

/// Lengths of words; 0: the symbol has none. bits: the longest, 1..kHuffmanMaxBits.
struct HuffmanModel {
  unsigned bits = 0;
  unsigned symbols = 0;
  std::array<std::uint8_t, 256> length{};
};
/// True when the words fill the code space, none is longer than `bits`, one is as long, and `symbols` is 1..256.
[[nodiscard]] bool is_valid(const HuffmanModel& model) noexcept;

struct HuffmanEncodeTable {
  std::array<std::uint16_t, 256> word{};
  std::array<std::uint8_t, 256> length{};
};
struct HuffmanDecodeTable {
  unsigned bits = 0;
  std::array<std::uint16_t, 1U << kHuffmanMaxBits> entry{};  ///< by the next `bits` bits: symbol << 8 | length
};
/// The model is valid.
void make_huffman_encode_table(const HuffmanModel& model, HuffmanEncodeTable& table) noexcept;
void make_huffman_decode_table(const HuffmanModel& model, HuffmanDecodeTable& table) noexcept;

/// Bytes that must be writable behind those a stream can have.
inline constexpr std::size_t kHuffmanSlack = 8;
/// Codes stream `stream` of `streams`; every symbol has a word. Returns the bytes written: at most
/// ceil(symbols of the stream * kHuffmanMaxBits / 8).
[[nodiscard]] std::size_t huffman_encode(const HuffmanEncodeTable& table, std::span<const std::uint8_t> symbols,
                                         std::size_t stream, std::size_t streams, std::span<std::byte> out) noexcept;

/// A decoder between two portions.
struct HuffmanCursor {
  std::size_t streams = 0;
  std::array<std::span<const std::byte>, kHuffmanMaxStreams> bytes{};
  std::array<std::uint64_t, kHuffmanMaxStreams> position{};  ///< bits taken
};
/// Decodes the next symbols.size() symbols; all portions but the last are multiples of the streams. False when a stream
/// runs out. Never reads outside the streams; any bytes give symbols of the table. About 1 ns per symbol.
[[nodiscard]] bool huffman_decode(const HuffmanDecodeTable& table, HuffmanCursor& cursor,
                                  std::span<std::uint8_t> symbols) noexcept;
/// True when every byte was used and the bits left over are 0.
[[nodiscard]] bool huffman_finished(const HuffmanCursor& cursor) noexcept;

}  // namespace lmq
