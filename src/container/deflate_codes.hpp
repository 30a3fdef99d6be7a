#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace lmq {

/// A byte (length 0, value the byte) or a copy of `length` bytes from `value` before.
struct Token {
  std::uint16_t length = 0;  ///< 0, or 3..258
  std::uint16_t value = 0;   ///< byte, or distance 1..32768
};

/// Code lengths of the fewest bits for these counts, at most `longest` each; 0 where the count is 0. One symbol alone
/// gets one bit. Of two symbols as frequent the earlier one has no shorter word.
/// Source: Larmore & Hirschberg 1990, A fast algorithm for optimal length-limited Huffman codes (package-merge).
[[nodiscard]] std::vector<std::uint8_t> word_lengths(std::span<const std::uint64_t> counts, unsigned longest);

/// Bits of a deflate stream, the least significant of a byte first.
class DeflateWriter {
 public:
  void bits(std::uint32_t value, unsigned count);
  void align();
  /// One block (RFC 1951, 3.2.3): with words of its own, with the fixed ones, or as plain bytes, whichever is shortest.
  /// `bytes` are what the tokens stand for.
  void block(std::span<const Token> tokens, std::span<const std::byte> bytes, bool last);
  [[nodiscard]] std::vector<std::byte> take();

 private:
  void plain(std::span<const std::byte> bytes, bool last);
  std::vector<std::byte> out_;
  std::uint64_t held_ = 0;
  unsigned held_bits_ = 0;
};

}  // namespace lmq
