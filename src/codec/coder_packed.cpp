// Codes of a fixed width, one after another or a bit plane after another (docs/format.md, sections 2.3 and 2.3.1).
#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "coders.hpp"
#include "lmq/base/bytes.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/kernels/pack.hpp"

namespace lmq {
namespace {

unsigned width_of(const CodeCounts& counts) noexcept {
  unsigned last = 0;
  for (unsigned s = 0; s < counts.size(); ++s)
    if (counts[s] > 0) last = s;
  return static_cast<unsigned>(std::bit_width(last));
}

/// Packed codes, refused when the bits left over in their last byte are not 0: a record has one spelling.
std::span<const std::byte> take_packed(ByteReader& in, std::uint64_t count, unsigned bits, const char* field) {
  const auto packed = in.raw(packed_bytes(count, bits), field);
  const std::uint64_t used = count * bits % 8;
  if (used != 0 && std::to_integer<unsigned>(packed.back()) >> used != 0)
    in.refuse(fmt::format("{}: bits behind the last code are not 0", field));
  return packed;
}

void prepare_nothing(const RecordParts&, DecodeTables&) {}
BlockCursor start_anywhere(const RecordParts&, std::size_t) { return {}; }
std::size_t no_tail(const RecordParts&, std::size_t) { return 0; }
const char* finish_nothing(const DecodeTables&, BlockCursor&, std::span<Code>) { return nullptr; }
void encode_nothing(const QuantizedUnit&, CodedPayload&) {}

const char* check_codes(const RecordParts& parts, std::span<const Code> codes) {
  const bool exceeds =
      parts.header.levels < 1U << parts.header.code_bits && std::ranges::max(codes) >= parts.header.levels;
  return exceeds ? "a code exceeds the levels" : nullptr;
}

std::uint64_t price_fixed(const QuantizedUnit& unit, const CodeCounts& counts, CodedPayload& payload) {
  payload.bits = width_of(counts);
  payload.bytes = packed_bytes(unit.count, payload.bits);
  return 8 * payload.bytes;
}

void write_fixed(const QuantizedUnit& unit, const CodedPayload& payload, EncodedRecord& into) {
  const unsigned bits = payload.bits;
  const std::size_t begin = into.bytes.size();
  into.ledger.codes = payload.bytes;
  into.bytes.resize(begin + payload.bytes);
  const std::span<std::byte> packed = std::span(into.bytes).subspan(begin);
  parallel_for(static_cast<std::size_t>(block_count(unit.count)), [&](std::size_t b) {  // blocks end on whole bytes
    const std::uint64_t codes = block_codes(unit.count, b);
    pack_codes(std::span(unit.codes).subspan(b * kBlockCodes, codes), bits,
               packed.subspan(b * packed_bytes(kBlockCodes, bits), packed_bytes(codes, bits)));
  });
}

void open_fixed(RecordParts& parts, ByteReader& in) {
  parts.blocks.push_back(take_packed(in, parts.header.count, parts.header.code_bits, "codes"));
}

const char* fill_fixed(const RecordParts& parts, const DecodeTables&, BlockCursor&, std::uint64_t begin,
                       std::span<Code> codes) {
  const unsigned bits = parts.header.code_bits;
  unpack_codes(parts.blocks[0].subspan(begin / 8 * bits, packed_bytes(codes.size(), bits)), bits, codes);
  return check_codes(parts, codes);
}

std::uint64_t price_planes(const QuantizedUnit& unit, const CodeCounts& counts, CodedPayload& payload) {
  payload.bits = width_of(counts);
  payload.bytes = packed_bytes(unit.count, 1) * payload.bits;
  return 8 * payload.bytes;
}

void write_planes(const QuantizedUnit& unit, const CodedPayload& payload, EncodedRecord& into) {
  const std::size_t begin = into.bytes.size();
  const auto plane = static_cast<std::size_t>(packed_bytes(unit.count, 1));
  into.ledger.codes = payload.bytes;
  into.bytes.resize(begin + payload.bytes);
  parallel_for(static_cast<std::size_t>(block_count(unit.count)), [&](std::size_t b) {
    const std::uint64_t codes = block_codes(unit.count, b);
    for (unsigned j = 0; j < payload.bits; ++j)
      pack_plane(std::span(unit.codes).subspan(b * kBlockCodes, codes), payload.bits - 1 - j,
                 std::span(into.bytes).subspan(begin + j * plane + b * (kBlockCodes / 8), packed_bytes(codes, 1)));
  });
}

void open_planes(RecordParts& parts, ByteReader& in) {
  for (unsigned plane = 0; plane < parts.header.code_bits; ++plane)
    parts.blocks.push_back(take_packed(in, parts.header.count, 1, "plane"));
}

const char* fill_planes(const RecordParts& parts, const DecodeTables&, BlockCursor&, std::uint64_t begin,
                        std::span<Code> codes) {
  std::ranges::fill(codes, Code{0});
  for (unsigned j = 0; j < parts.header.code_bits; ++j)
    unpack_plane(parts.blocks[j].subspan(begin / 8, packed_bytes(codes.size(), 1)), parts.header.code_bits - 1 - j,
                 codes);
  return check_codes(parts, codes);
}

}  // namespace

const Coder kFixedCoder{.id = CoderChoice::fixed,
                        .first_version = 1,
                        .least_bits = 1,
                        .most_bits = 8,
                        .detail = false,
                        .price = price_fixed,
                        .encode = encode_nothing,
                        .write = write_fixed,
                        .open = open_fixed,
                        .prepare = prepare_nothing,
                        .start = start_anywhere,
                        .tail = no_tail,
                        .fill = fill_fixed,
                        .finish = finish_nothing};

const Coder kPlanesCoder{.id = CoderChoice::planes,
                         .first_version = 2,
                         .least_bits = 1,
                         .most_bits = 8,
                         .detail = false,
                         .price = price_planes,
                         .encode = encode_nothing,
                         .write = write_planes,
                         .open = open_planes,
                         .prepare = prepare_nothing,
                         .start = start_anywhere,
                         .tail = no_tail,
                         .fill = fill_planes,
                         .finish = finish_nothing};

}  // namespace lmq
