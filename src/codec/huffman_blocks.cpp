#include "huffman_blocks.hpp"

#include <fmt/format.h>

#include <cstring>

#include "lmq/base/bytes.hpp"
#include "lmq/base/parallel.hpp"

namespace lmq {
namespace {

constexpr std::uint64_t length_bytes(unsigned symbols) noexcept { return (symbols + 1) / 2; }
/// Sizes of all streams but the last.
constexpr std::size_t size_bytes(std::uint64_t codes) noexcept { return 4 * (huffman_streams(codes) - 1); }

std::uint32_t size_at(std::span<const std::byte> block, std::size_t stream) noexcept {
  std::uint32_t size;
  std::memcpy(&size, block.data() + 4 * stream, sizeof size);
  return size;
}

std::vector<std::byte> encode_block(const HuffmanEncodeTable& table, std::span<const Code> codes) {
  const std::size_t streams = huffman_streams(codes.size()), sizes = size_bytes(codes.size());
  std::vector<std::byte> block(sizes + codes.size() * kHuffmanMaxBits / 8 + streams + kHuffmanSlack);
  std::size_t end = sizes;
  for (std::size_t s = 0; s < streams; ++s) {
    const auto size =
        static_cast<std::uint32_t>(huffman_encode(table, codes, s, streams, std::span(block).subspan(end)));
    if (s + 1 < streams) std::memcpy(block.data() + 4 * s, &size, sizeof size);
    end += size;
  }
  block.resize(end);
  return block;
}

}  // namespace

HuffmanModel fit_huffman(const CodeCounts& counts) noexcept {
  HuffmanModel model;
  huffman_lengths(counts, kHuffmanMaxBits, model.length);
  for (unsigned s = 0; s < counts.size(); ++s)
    if (counts[s] > 0) model.symbols = s + 1, model.bits = std::max<unsigned>(model.bits, model.length[s]);
  return model;
}

std::uint64_t least_huffman_bytes(const CodeCounts& counts, const HuffmanModel& model, std::uint64_t codes) noexcept {
  std::uint64_t bits = 0, bytes = length_bytes(model.symbols);
  for (std::size_t s = 0; s < counts.size(); ++s) bits += counts[s] * model.length[s];
  for (std::uint64_t b = 0; b < block_count(codes); ++b) bytes += 4 + size_bytes(block_codes(codes, b));
  return bytes + ceil_div(bits, 8);
}

HuffmanPayload encode_huffman(std::span<const Code> codes, const HuffmanModel& model) {
  HuffmanEncodeTable table;
  make_huffman_encode_table(model, table);
  std::vector<std::vector<std::byte>> blocks(static_cast<std::size_t>(block_count(codes.size())));
  parallel_for(blocks.size(), [&](std::size_t b) {
    blocks[b] = encode_block(table, codes.subspan(b * kBlockCodes, block_codes(codes.size(), b)));
  });
  HuffmanPayload payload{.model = model, .bytes = {}, .stream_bytes = 0};
  payload.bytes.resize(length_bytes(model.symbols));
  for (unsigned s = 0; s < model.symbols; ++s)
    payload.bytes[s / 2] |= static_cast<std::byte>(model.length[s] << 4 * (s % 2));
  const auto append = [&](std::span<const std::byte> bytes) {
    payload.bytes.insert(payload.bytes.end(), bytes.begin(), bytes.end());
  };
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    const auto size = static_cast<std::uint32_t>(blocks[b].size());
    append(std::as_bytes(std::span(&size, 1)));
    payload.stream_bytes += size - size_bytes(block_codes(codes.size(), b));
  }
  for (const auto& block : blocks) append(block);
  return payload;
}

HuffmanModel read_huffman_model(ByteReader& in, unsigned bits, unsigned symbols) {
  HuffmanModel model{.bits = bits, .symbols = symbols, .length = {}};
  const auto packed = in.raw(length_bytes(symbols), "word lengths");
  for (unsigned s = 0; s < symbols; ++s)
    model.length[s] = static_cast<std::uint8_t>(std::to_integer<unsigned>(packed[s / 2]) >> 4 * (s % 2) & 15);
  if (symbols % 2 != 0 && std::to_integer<unsigned>(packed.back()) >> 4 != 0)
    in.refuse("word lengths: a length too many");
  if (!is_valid(model)) in.refuse(fmt::format("word lengths: they do not fill words of {} bits", bits));
  return model;
}

void take_huffman_blocks(RecordParts& parts, ByteReader& in) {
  parts.words = read_huffman_model(in, parts.header.code_bits, parts.header.detail + 1U);
  const auto sizes = in.array<std::uint32_t>(block_count(parts.header.count), "block sizes");
  parts.blocks.reserve(sizes.size());
  for (std::size_t b = 0; b < sizes.size(); ++b) {
    const std::uint64_t codes = block_codes(parts.header.count, b), fixed = size_bytes(codes);
    if (sizes[b] < fixed) in.refuse(fmt::format("block {} of {} codes has {} bytes", b, codes, sizes[b]));
    const auto block = in.raw(sizes[b], "block");
    std::uint64_t streams = fixed;
    for (std::size_t s = 0; s + 1 < huffman_streams(codes); ++s) streams += size_at(block, s);
    if (streams > block.size())
      in.refuse(fmt::format("block {} has {} bytes, its streams {}", b, block.size(), streams));
    parts.blocks.push_back(block);
  }
}

HuffmanCursor huffman_cursor(std::span<const std::byte> block, std::uint64_t codes) noexcept {
  HuffmanCursor cursor;
  cursor.streams = huffman_streams(codes);
  auto left = block.subspan(size_bytes(codes));
  for (std::size_t s = 0; s + 1 < cursor.streams; ++s) {
    const std::size_t size = size_at(block, s);
    cursor.bytes[s] = left.first(size);
    left = left.subspan(size);
  }
  cursor.bytes[cursor.streams - 1] = left;
  return cursor;
}

}  // namespace lmq
