// Codes by rans (docs/format.md, section 2.4).
#include <fmt/format.h>

#include <cstring>
#include <memory>

#include "coders.hpp"
#include "lmq/base/bytes.hpp"
#include "lmq/base/parallel.hpp"

namespace lmq {
namespace {

/// Room that is neither cleared nor given back between records of ordinary size.
class Arena {
 public:
  std::span<std::uint16_t> take(std::size_t words) {
    if (words > size_ || (size_ > kKept && words <= kKept)) {
      room_ = std::make_unique_for_overwrite<std::uint16_t[]>(words);
      size_ = words;
    }
    return {room_.get(), words};
  }

 private:
  static constexpr std::size_t kKept = std::size_t{1} << 25;
  std::unique_ptr<std::uint16_t[]> room_;
  std::size_t size_ = 0;
};

std::uint64_t price(const QuantizedUnit&, const CodeCounts& counts, CodedPayload& payload) {
  payload.rans = choose_model(counts);
  payload.bits = payload.rans.bits;
  payload.detail = static_cast<std::uint8_t>(payload.rans.symbols - 1);
  return coded_bits(counts, payload.rans);
}

void encode(const QuantizedUnit& unit, CodedPayload& payload) {
  thread_local Arena arena;
  static thread_local RansEncodeTable table;
  make_rans_encode_table(payload.rans, table);
  constexpr std::size_t kRoom = kBlockCodes + kRansSlackWords;
  payload.table = write_model(payload.rans);
  payload.blocks.resize(static_cast<std::size_t>(block_count(unit.count)));
  const auto room = arena.take(unit.codes.size() + payload.blocks.size() * kRansSlackWords);
  parallel_for(payload.blocks.size(), [&, &shared = table](std::size_t b) {
    const auto codes = std::span(unit.codes).subspan(b * kBlockCodes, block_codes(unit.count, b));
    const auto words = room.subspan(b * kRoom, codes.size() + kRansSlackWords);
    encode_rans_block(shared, codes, words, payload.blocks[b]);
  });
  payload.bytes = payload.table.size();
  for (const RansBlock& block : payload.blocks) payload.bytes += 4 + block.size();
}

void write(const QuantizedUnit&, const CodedPayload& payload, EncodedRecord& into) {
  const auto append = [&](std::span<const std::byte> bytes) {
    into.bytes.insert(into.bytes.end(), bytes.begin(), bytes.end());
  };
  append(payload.table);
  std::vector<std::size_t> begin;
  std::size_t end = into.bytes.size() + 4 * payload.blocks.size();
  for (const RansBlock& block : payload.blocks) {
    const auto size = static_cast<std::uint32_t>(block.size());
    append(std::as_bytes(std::span(&size, 1)));
    begin.push_back(end);
    end += size;
    into.ledger.codes += block.words.size_bytes();
  }
  into.ledger.tables = payload.bytes - into.ledger.codes;
  into.bytes.resize(end);
  parallel_for(payload.blocks.size(), [&](std::size_t b) {
    const RansBlock& block = payload.blocks[b];
    std::byte* at = into.bytes.data() + begin[b];
    std::memcpy(at, block.room.data(), block.start_bytes);
    if (!block.words.empty()) std::memcpy(at + block.start_bytes, block.words.data(), block.words.size_bytes());
  });
}

void open(RecordParts& parts, ByteReader& in) {
  parts.model = read_model(in, parts.header.code_bits, parts.header.detail + 1U);
  const std::uint64_t blocks = block_count(parts.header.count);
  const auto sizes = in.array<std::uint32_t>(blocks, "block sizes");
  parts.starts.reserve(sizes.size());
  for (std::size_t b = 0; b < sizes.size(); ++b) {
    const std::uint64_t codes = block_codes(parts.header.count, b);
    const auto start = read_rans_start(in.raw(sizes[b], "block"), codes);
    if (!start) in.refuse(fmt::format("block {} of {} codes has {} bytes that are none", b, codes, sizes[b]));
    parts.starts.push_back(*start);
  }
}

void prepare(const RecordParts& parts, DecodeTables& tables) { make_rans_decode_table(parts.model, tables.rans); }

BlockCursor start(const RecordParts& parts, std::size_t block) { return {parts.starts[block].cursor, {}}; }

std::size_t tail(const RecordParts& parts, std::size_t block) { return parts.starts[block].tail; }

const char* fill(const RecordParts&, const DecodeTables& tables, BlockCursor& cursor, std::uint64_t,
                 std::span<Code> codes) {
  return rans_decode(tables.rans, cursor.rans, codes) ? nullptr : "codes end early";
}

const char* finish(const DecodeTables& tables, BlockCursor& cursor, std::span<Code> codes) {
  return decode_rans_tail(tables.rans, cursor.rans, codes) ? nullptr : "coder states do not end where coding began";
}

}  // namespace

const Coder kRansCoder{.id = CoderChoice::rans,
                       .first_version = 1,
                       .least_bits = kRansMinBits,
                       .most_bits = kRansMaxBits,
                       .detail = true,
                       .price = price,
                       .encode = encode,
                       .write = write,
                       .open = open,
                       .prepare = prepare,
                       .start = start,
                       .tail = tail,
                       .fill = fill,
                       .finish = finish};

}  // namespace lmq
