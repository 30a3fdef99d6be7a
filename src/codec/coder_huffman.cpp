// Codes by Huffman words (docs/format.md, section 2.4.1).
#include "coders.hpp"

namespace lmq {
namespace {

std::uint64_t price(const QuantizedUnit& unit, const CodeCounts& counts, CodedPayload& payload) {
  payload.words.model = fit_huffman(counts);
  payload.bits = payload.words.model.bits;
  payload.detail = static_cast<std::uint8_t>(payload.words.model.symbols - 1);
  return 8 * least_huffman_bytes(counts, payload.words.model, unit.count);
}

void encode(const QuantizedUnit& unit, CodedPayload& payload) {
  payload.words = encode_huffman(unit.codes, payload.words.model);
  payload.bytes = payload.words.bytes.size();
}

void write(const QuantizedUnit&, const CodedPayload& payload, EncodedRecord& into) {
  into.bytes.insert(into.bytes.end(), payload.words.bytes.begin(), payload.words.bytes.end());
  into.ledger.codes = payload.words.stream_bytes;
  into.ledger.tables = payload.bytes - into.ledger.codes;
}

void prepare(const RecordParts& parts, DecodeTables& tables) { make_huffman_decode_table(parts.words, tables.words); }

BlockCursor start(const RecordParts& parts, std::size_t block) {
  return {{}, huffman_cursor(parts.blocks[block], block_codes(parts.header.count, block))};
}

std::size_t tail(const RecordParts&, std::size_t) { return 0; }

const char* fill(const RecordParts&, const DecodeTables& tables, BlockCursor& cursor, std::uint64_t,
                 std::span<Code> codes) {
  return huffman_decode(tables.words, cursor.words, codes) ? nullptr : "codes end early";
}

const char* finish(const DecodeTables&, BlockCursor& cursor, std::span<Code>) {
  return huffman_finished(cursor.words) ? nullptr : "codes do not end with their streams";
}

}  // namespace

const Coder kHuffmanCoder{.id = CoderChoice::huffman,
                          .first_version = 2,
                          .least_bits = 1,
                          .most_bits = kHuffmanMaxBits,
                          .detail = true,
                          .price = price,
                          .encode = encode,
                          .write = write,
                          .open = take_huffman_blocks,
                          .prepare = prepare,
                          .start = start,
                          .tail = tail,
                          .fill = fill,
                          .finish = finish};

}  // namespace lmq
