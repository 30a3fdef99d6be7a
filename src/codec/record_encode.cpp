#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "coders.hpp"
#include "layout.hpp"
#include "lmq/base/bytes.hpp"
#include "lmq/base/digest.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/codec/model.hpp"
#include "lmq/codec/record.hpp"
#include "lmq/kernels/pack.hpp"
#include "lmq/kernels/rate_cells.hpp"

namespace lmq {
namespace {

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

/// A payload and its coder; none where all codes are the same.
struct Choice {
  const Coder* coder = nullptr;
  CodedPayload payload;
};

Choice encoded(const Coder& coder, const QuantizedUnit& unit, const CodeCounts& counts) {
  Choice choice{&coder, {}};
  (void)coder.price(unit, counts, choice.payload);
  coder.encode(unit, choice.payload);
  return choice;
}

/// Whether the coder is one whose price the width of the codes alone decides. Planes cost what fixed width does, but
/// for the last byte of each; they are what products of signs work on.
const Coder& packed_coder(const QuantizedUnit& unit) {
  return unit.count % 8 == 0 && unit.kind == CodebookKind::bases ? kPlanesCoder : kFixedCoder;
}

/// The fewest bytes; of equal ones the packed codes, then the coder that comes first in the table.
Choice cheapest(const QuantizedUnit& unit, const CodeCounts& counts) {
  Choice best = encoded(packed_coder(unit), unit, counts);
  for (const Coder* coder : coders()) {
    if (takes_whole_bits(coder->id)) continue;
    Choice next{coder, {}};
    if (coder->price(unit, counts, next.payload) >= 8 * best.payload.bytes) continue;
    coder->encode(unit, next.payload);
    if (next.payload.bytes < best.payload.bytes) best = std::move(next);
  }
  return best;
}

Choice choose(const QuantizedUnit& unit, const CodeCounts& counts, CoderChoice wanted) {
  const auto last = std::ranges::find_if(counts.rbegin(), counts.rend(), [](std::uint64_t count) { return count > 0; });
  const std::uint64_t most = last == counts.rend() ? 0 : *last;
  if (most == unit.count) {  // also when there are no codes at all
    Choice same;
    if (last != counts.rend()) same.payload.detail = static_cast<std::uint8_t>(counts.rend() - last - 1);
    return same;
  }
  if (wanted == CoderChoice::cheapest) return cheapest(unit, counts);
  return encoded(*find_coder(wanted), unit, counts);
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
                .coder = chosen.coder != nullptr           ? chosen.coder->id
                         : choice == CoderChoice::cheapest ? CoderChoice::fixed
                                                           : choice,
                .code_bits = chosen.payload.bits,
                .detail = chosen.payload.detail,
                .exponent = exponent},
               into.bytes);
  write_book(unit, exponent, into.bytes);
  into.ledger.codebooks = into.bytes.size() - kHeaderBytes;
  into.ledger.header = kHeaderBytes + kChecksumBytes;
  if (chosen.coder != nullptr) chosen.coder->write(unit, chosen.payload, into);
  const std::uint64_t checksum = digest64(into.bytes);
  append(into.bytes, std::as_bytes(std::span(&checksum, 1)));
}

EncodedRecord encode_record(const QuantizedUnit& unit, CoderChoice choice) {
  EncodedRecord record;
  encode_record(unit, choice, record);
  return record;
}

}  // namespace lmq
