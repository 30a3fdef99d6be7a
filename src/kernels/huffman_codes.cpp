#include <algorithm>
#include <bit>
#include <cstring>

#include "lmq/kernels/huffman.hpp"

namespace lmq {
namespace {

constexpr std::size_t kAtOnce =
    4;  // words of a stream between two loads: 4 * 12 bits and 7 of a begun byte fit into 64

std::uint64_t load64(const std::byte* at) noexcept {
  std::uint64_t word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

std::uint16_t reversed(unsigned word, unsigned bits) noexcept {
  unsigned out = 0;
  for (unsigned b = 0; b < bits; ++b) out |= (word >> b & 1) << (bits - 1 - b);
  return static_cast<std::uint16_t>(out);
}

// 57 bits or more from a position on; 0 behind the end.
std::uint64_t bits_at(std::span<const std::byte> bytes, std::uint64_t position) noexcept {
  const std::uint64_t first = position / 8;
  if (first + 8 <= bytes.size()) return load64(bytes.data() + first) >> position % 8;
  std::uint64_t word = 0;
  for (std::uint64_t k = first; k < bytes.size(); ++k)
    word |= std::to_integer<std::uint64_t>(bytes[k]) << 8 * (k - first);
  return word >> position % 8;
}

}  // namespace

bool is_valid(const HuffmanModel& model) noexcept {
  if (model.bits < 1 || model.bits > kHuffmanMaxBits || model.symbols < 1 || model.symbols > 256) return false;
  std::uint32_t filled = 0;
  unsigned longest = 0;
  for (unsigned s = 0; s < model.symbols; ++s) {
    const unsigned length = model.length[s];
    if (length > model.bits) return false;
    longest = std::max(longest, length);
    if (length > 0) filled += 1U << (model.bits - length);
  }
  return longest == model.bits && filled == 1U << model.bits;
}

void make_huffman_encode_table(const HuffmanModel& model, HuffmanEncodeTable& table) noexcept {
  unsigned next = 0;
  for (unsigned length = 1; length <= model.bits; ++length, next <<= 1)
    for (unsigned s = 0; s < model.symbols; ++s)
      if (model.length[s] == length) table.word[s] = reversed(next++, length);
  table.length = model.length;
}

void make_huffman_decode_table(const HuffmanModel& model, HuffmanDecodeTable& table) noexcept {
  HuffmanEncodeTable words;
  make_huffman_encode_table(model, words);
  table.bits = model.bits;
  for (unsigned s = 0; s < model.symbols; ++s) {
    const unsigned length = model.length[s];
    if (length == 0) continue;
    for (unsigned rest = 0; rest < 1U << (model.bits - length); ++rest)
      table.entry[words.word[s] | rest << length] = static_cast<std::uint16_t>(s << 8 | length);
  }
}

std::size_t huffman_encode(const HuffmanEncodeTable& table, std::span<const std::uint8_t> symbols, std::size_t stream,
                           std::size_t streams, std::span<std::byte> out) noexcept {
  std::uint64_t held = 0;
  unsigned bits = 0;
  std::byte* at = out.data();
  const auto put = [&](std::size_t i) {
    const std::uint8_t s = symbols[i];
    held |= std::uint64_t{table.word[s]} << bits;
    bits += table.length[s];
  };
  const auto flush = [&] {  // whole bytes; what lies behind them is written again
    std::memcpy(at, &held, sizeof held);
    at += bits / 8;
    held >>= bits / 8 * 8;
    bits %= 8;
  };
  std::size_t i = stream;
  for (; i + (kAtOnce - 1) * streams < symbols.size(); i += kAtOnce * streams) {
    for (std::size_t k = 0; k < kAtOnce; ++k) put(i + k * streams);
    flush();
  }
  for (; i < symbols.size(); i += streams) {
    put(i);
    flush();
  }
  if (bits > 0) *at++ = static_cast<std::byte>(held);
  return static_cast<std::size_t>(at - out.data());
}

bool huffman_decode(const HuffmanDecodeTable& table, HuffmanCursor& cursor, std::span<std::uint8_t> symbols) noexcept {
  const std::uint64_t mask = (std::uint64_t{1} << table.bits) - 1;
  const std::size_t streams = cursor.streams, step = kAtOnce * streams;
  std::size_t done = 0;
  for (; done + step <= symbols.size(); done += step)
    for (std::size_t s = 0; s < streams; ++s) {
      std::uint64_t word = bits_at(cursor.bytes[s], cursor.position[s]);
      std::uint64_t taken = 0;
      for (std::size_t k = 0; k < kAtOnce; ++k) {
        const std::uint16_t entry = table.entry[word & mask];
        symbols[done + k * streams + s] = static_cast<std::uint8_t>(entry >> 8);
        word >>= entry & 0xFF;
        taken += entry & 0xFF;
      }
      cursor.position[s] += taken;
    }
  for (; done < symbols.size(); ++done) {
    const std::size_t s = done % streams;
    const std::uint16_t entry = table.entry[bits_at(cursor.bytes[s], cursor.position[s]) & mask];
    symbols[done] = static_cast<std::uint8_t>(entry >> 8);
    cursor.position[s] += entry & 0xFF;
  }
  for (std::size_t s = 0; s < streams; ++s)
    if (cursor.position[s] > 8 * cursor.bytes[s].size()) return false;
  return true;
}

bool huffman_finished(const HuffmanCursor& cursor) noexcept {
  for (std::size_t s = 0; s < cursor.streams; ++s) {
    const std::uint64_t size = 8 * cursor.bytes[s].size();
    if (cursor.position[s] > size || size - cursor.position[s] >= 8) return false;
    if (cursor.position[s] < size && bits_at(cursor.bytes[s], cursor.position[s]) != 0) return false;
  }
  return true;
}

}  // namespace lmq
