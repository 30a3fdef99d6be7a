#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <memory>

#include "huffman_blocks.hpp"
#include "layout.hpp"
#include "lmq/base/bytes.hpp"
#include "lmq/base/digest.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/codec/model.hpp"
#include "lmq/codec/record.hpp"
#include "lmq/kernels/pack.hpp"
#include "lmq/kernels/rate_cells.hpp"
#include "rans_blocks.hpp"

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

[[noreturn]] void contradiction(const std::string& what) { fail(Errc::internal, "record to encode: " + what); }

void check(const QuantizedUnit& unit) {
  if (unit.count > kMaxRecordCount) contradiction(fmt::format("{} weights, at most {}", unit.count, kMaxRecordCount));
  if (unit.codes.size() != unit.count)
    contradiction(fmt::format("{} codes of {} weights", unit.codes.size(), unit.count));
  if (unit.levels < 1 || unit.levels > 256) contradiction(fmt::format("{} levels, not 1..256", unit.levels));
  if (unit.group > 0 && (unit.cols == 0 || unit.count % unit.cols != 0))
    contradiction(fmt::format("{} weights are no whole number of rows of {}", unit.count, unit.cols));
  if (unit.kind == CodebookKind::bases && (unit.levels < 2 || !std::has_single_bit(unit.levels)))
    contradiction(fmt::format("{} levels of bases, not a power of two", unit.levels));
  if (unit.kind == CodebookKind::rank1 && (unit.group != 0 || unit.cols == 0 || unit.count % unit.cols != 0))
    contradiction("factors of rows and columns want whole rows and no groups");
  const std::uint64_t numbers = unit.book_numbers();
  if (unit.book.size() != numbers)
    contradiction(fmt::format("{} codebook numbers, expected {}", unit.book.size(), numbers));
  if (!std::ranges::all_of(unit.book, [](float x) { return std::isfinite(x); }))
    contradiction("a codebook number is not finite");
}

CodeCounts count_all(const QuantizedUnit& unit) {
  const std::size_t blocks = static_cast<std::size_t>(block_count(unit.count));
  std::vector<CodeCounts> part(blocks);
  parallel_for(blocks, [&](std::size_t b) {
    const auto codes = std::span(unit.codes).subspan(b * kBlockCodes, block_codes(unit.count, b));
    count_codes(codes, part[b]);
  });
  CodeCounts counts{};
  for (const CodeCounts& p : part)
    for (std::size_t s = 0; s < counts.size(); ++s) counts[s] += p[s];
  for (std::size_t s = unit.levels; s < counts.size(); ++s)
    if (counts[s] > 0) contradiction(fmt::format("code {} with {} levels", s, unit.levels));
  return counts;
}

double entropy_bits(const CodeCounts& counts, std::uint64_t total) {
  double bits = 0;
  for (const std::uint64_t count : counts)
    if (count > 0) bits += double(count) * plain_log2(double(total) / double(count));
  return bits;
}

void append(std::vector<std::byte>& to, std::span<const std::byte> bytes) {
  to.insert(to.end(), bytes.begin(), bytes.end());
}

void write_header(const RecordHeader& header, std::vector<std::byte>& to) {
  ByteWriter out;
  out.le(kRecordMagic);
  out.le(kRecordVersion);
  out.le(static_cast<std::uint8_t>(header.coder));
  out.le(static_cast<std::uint8_t>(header.code_bits));
  out.le(header.detail);
  out.le(static_cast<std::uint8_t>(header.kind));
  out.le(static_cast<std::uint8_t>(header.level_type));
  out.le(static_cast<std::uint8_t>(header.source));
  out.le(static_cast<std::int8_t>(header.exponent));
  out.le(header.method);
  out.le(static_cast<std::uint16_t>(header.levels));
  out.le(header.count);
  out.le(header.cols);
  out.le(header.group);
  append(to, out.bytes());
}

void write_book(const QuantizedUnit& unit, int exponent, std::vector<std::byte>& to) {
  if (unit.level_type == LevelType::f32) return append(to, std::as_bytes(std::span(unit.book)));
  std::vector<std::uint16_t> halves(unit.book.size());
  for (std::size_t i = 0; i < halves.size(); ++i) {
    halves[i] = to_scaled_half(unit.book[i], exponent);
    if (from_scaled_half(halves[i], exponent) != unit.book[i])
      contradiction(fmt::format("codebook number {} ({}) is no scaled half: round_levels first", i, unit.book[i]));
  }
  append(to, std::as_bytes(std::span(halves)));
}

std::vector<RansBlock> code_blocks(const QuantizedUnit& unit, const RansModel& model) {
  thread_local Arena arena;
  static thread_local RansEncodeTable table;
  make_rans_encode_table(model, table);
  constexpr std::size_t kRoom = kBlockCodes + kRansSlackWords;
  std::vector<RansBlock> blocks(static_cast<std::size_t>(block_count(unit.count)));
  const auto room = arena.take(unit.codes.size() + blocks.size() * kRansSlackWords);
  parallel_for(blocks.size(), [&, &shared = table](std::size_t b) {
    const auto codes = std::span(unit.codes).subspan(b * kBlockCodes, block_codes(unit.count, b));
    const auto words = room.subspan(b * kRoom, codes.size() + kRansSlackWords);
    encode_rans_block(shared, codes, words, blocks[b]);
  });
  return blocks;
}

/// What the coder adds to header and codebooks.
struct Choice {
  CoderChoice coder = CoderChoice::fixed;
  unsigned bits = 0;
  std::uint8_t detail = 0;
  std::vector<std::byte> table;
  std::vector<RansBlock> blocks;
  HuffmanPayload words = {};
  [[nodiscard]] std::uint64_t rans_bytes() const noexcept {
    std::uint64_t size = table.size();
    for (const RansBlock& block : blocks) size += 4 + block.size();
    return size;
  }
};

Choice in_words(const QuantizedUnit& unit, const HuffmanModel& model) {
  return {.coder = CoderChoice::huffman,
          .bits = model.bits,
          .detail = static_cast<std::uint8_t>(model.symbols - 1),
          .table = {},
          .blocks = {},
          .words = encode_huffman(unit.codes, model)};
}

/// Huffman words where their bytes are fewer than those of `best`.
Choice or_words(const QuantizedUnit& unit, const CodeCounts& counts, std::uint64_t best_bytes, Choice best) {
  const HuffmanModel model = fit_huffman(counts);
  if (least_huffman_bytes(counts, model, unit.count) >= best_bytes) return best;
  Choice words = in_words(unit, model);
  return words.words.bytes.size() < best_bytes ? words : best;
}

Choice choose(const QuantizedUnit& unit, const CodeCounts& counts, CoderChoice wanted) {
  unsigned last = 0;
  for (unsigned s = 0; s < counts.size(); ++s)
    if (counts[s] > 0) last = s;
  if (counts[last] == unit.count)  // also when there are no codes at all
    return {.coder = wanted == CoderChoice::cheapest ? CoderChoice::fixed : wanted,
            .bits = 0,
            .detail = static_cast<std::uint8_t>(last),
            .table = {},
            .blocks = {}};
  const auto width = static_cast<unsigned>(std::bit_width(last));
  // Planes cost what fixed width does, but for the last byte of each; they are what products of signs work on.
  const bool planes = wanted == CoderChoice::planes ||
                      (wanted == CoderChoice::cheapest && unit.count % 8 == 0 && unit.kind == CodebookKind::bases);
  const Choice fixed{.coder = planes ? CoderChoice::planes : CoderChoice::fixed,
                     .bits = width,
                     .detail = 0,
                     .table = {},
                     .blocks = {}};
  if (wanted == CoderChoice::planes) return fixed;
  if (wanted == CoderChoice::fixed) return fixed;
  if (wanted == CoderChoice::huffman) return in_words(unit, fit_huffman(counts));
  const RansModel model = choose_model(counts);
  const std::uint64_t fixed_bytes = packed_bytes(unit.count, width);
  if (wanted == CoderChoice::cheapest && coded_bits(counts, model) >= 8 * fixed_bytes)
    return or_words(unit, counts, fixed_bytes, fixed);
  Choice rans{.coder = CoderChoice::rans,
              .bits = model.bits,
              .detail = static_cast<std::uint8_t>(model.symbols - 1),
              .table = write_model(model),
              .blocks = code_blocks(unit, model)};
  if (wanted == CoderChoice::rans) return rans;
  const std::uint64_t rans_bytes = rans.rans_bytes();
  return or_words(unit, counts, std::min(rans_bytes, fixed_bytes), rans_bytes < fixed_bytes ? std::move(rans) : fixed);
}

void write_words(const Choice& choice, EncodedRecord& into) {
  append(into.bytes, choice.words.bytes);
  into.ledger.codes = choice.words.stream_bytes;
  into.ledger.tables = choice.words.bytes.size() - into.ledger.codes;
}

void write_rans(const Choice& choice, EncodedRecord& into) {
  append(into.bytes, choice.table);
  std::vector<std::size_t> begin;
  std::size_t end = into.bytes.size() + 4 * choice.blocks.size();
  for (const RansBlock& block : choice.blocks) {
    const auto size = static_cast<std::uint32_t>(block.size());
    append(into.bytes, std::as_bytes(std::span(&size, 1)));
    begin.push_back(end);
    end += size;
    into.ledger.codes += block.words.size_bytes();
  }
  into.ledger.tables = choice.rans_bytes() - into.ledger.codes;
  into.bytes.resize(end);
  parallel_for(choice.blocks.size(), [&](std::size_t b) {
    const RansBlock& block = choice.blocks[b];
    std::byte* at = into.bytes.data() + begin[b];
    std::memcpy(at, block.room.data(), block.start_bytes);
    if (!block.words.empty()) std::memcpy(at + block.start_bytes, block.words.data(), block.words.size_bytes());
  });
}

void write_fixed(const QuantizedUnit& unit, unsigned bits, EncodedRecord& into) {
  const std::size_t begin = into.bytes.size();
  into.ledger.codes = packed_bytes(unit.count, bits);
  into.bytes.resize(begin + into.ledger.codes);
  const std::span<std::byte> packed = std::span(into.bytes).subspan(begin);
  parallel_for(static_cast<std::size_t>(block_count(unit.count)), [&](std::size_t b) {  // blocks end on whole bytes
    const std::uint64_t codes = block_codes(unit.count, b);
    pack_codes(std::span(unit.codes).subspan(b * kBlockCodes, codes), bits,
               packed.subspan(b * packed_bytes(kBlockCodes, bits), packed_bytes(codes, bits)));
  });
}

void write_planes(const QuantizedUnit& unit, unsigned bits, EncodedRecord& into) {
  const std::size_t begin = into.bytes.size();
  const auto plane = static_cast<std::size_t>(packed_bytes(unit.count, 1));
  into.ledger.codes = plane * bits;
  into.bytes.resize(begin + plane * bits);
  parallel_for(static_cast<std::size_t>(block_count(unit.count)), [&](std::size_t b) {
    const std::uint64_t codes = block_codes(unit.count, b);
    for (unsigned j = 0; j < bits; ++j)
      pack_plane(std::span(unit.codes).subspan(b * kBlockCodes, codes), bits - 1 - j,
                 std::span(into.bytes).subspan(begin + j * plane + b * (kBlockCodes / 8), packed_bytes(codes, 1)));
  });
}

}  // namespace

void encode_record(const QuantizedUnit& unit, CoderChoice choice, EncodedRecord& into) {
  check(unit);
  const CodeCounts counts = count_all(unit);
  const Choice chosen = choose(unit, counts, choice);
  const int exponent = unit.level_type == LevelType::f16 ? half_exponent(unit.book) : 0;
  into.bytes.clear();
  into.ledger = {};
  into.entropy_bits = entropy_bits(counts, unit.count);
  write_header({.method = unit.method,
                .source = unit.source,
                .count = unit.count,
                .cols = unit.cols,
                .group = unit.group,
                .kind = unit.kind,
                .level_type = unit.level_type,
                .levels = unit.levels,
                .coder = chosen.coder,
                .code_bits = chosen.bits,
                .detail = chosen.detail,
                .exponent = exponent},
               into.bytes);
  write_book(unit, exponent, into.bytes);
  into.ledger.codebooks = into.bytes.size() - kHeaderBytes;
  into.ledger.header = kHeaderBytes + kChecksumBytes;
  if (chosen.bits > 0) {
    if (chosen.coder == CoderChoice::rans) {
      write_rans(chosen, into);
    } else if (chosen.coder == CoderChoice::huffman) {
      write_words(chosen, into);
    } else if (chosen.coder == CoderChoice::planes) {
      write_planes(unit, chosen.bits, into);
    } else {
      write_fixed(unit, chosen.bits, into);
    }
  }
  const std::uint64_t checksum = digest64(into.bytes);
  append(into.bytes, std::as_bytes(std::span(&checksum, 1)));
}

EncodedRecord encode_record(const QuantizedUnit& unit, CoderChoice choice) {
  EncodedRecord record;
  encode_record(unit, choice, record);
  return record;
}

}  // namespace lmq
