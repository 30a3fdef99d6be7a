#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "coders.hpp"
#include "layout.hpp"
#include "lmq/base/bytes.hpp"
#include "lmq/base/digest.hpp"
#include "lmq/codec/model.hpp"
#include "lmq/codec/trellis_record.hpp"
#include "trellis_layout.hpp"

namespace lmq {
namespace {

template <class Enum>
Enum take_enum(ByteReader& in, std::uint8_t first, std::uint8_t last, const char* field) {
  const auto value = in.le<std::uint8_t>(field);
  if (value < first || value > last) in.refuse(fmt::format("{} {}, expected {}..{}", field, value, first, last));
  return static_cast<Enum>(value);
}

const Coder& take_coder(ByteReader& in) {
  const auto value = in.le<std::uint8_t>("coder");
  const Coder* coder = find_coder(static_cast<CoderChoice>(value));
  if (coder == nullptr) in.refuse(fmt::format("coder {} is unknown", value));
  return *coder;
}

DType take_dtype(ByteReader& in) {
  const auto id = in.le<std::uint8_t>("source type");
  const auto type = dtype_from_id(id);
  if (!type) in.refuse(fmt::format("source type {} is unknown", id));
  return *type;
}

/// Numbers of all codebooks, or refused when they cannot be in the bytes that are left.
std::uint64_t count_numbers(const RecordHeader& header, ByteReader& in) {
  std::uint64_t books = 1;
  if (header.kind == CodebookKind::rank1 && (header.group != 0 || header.cols == 0))
    in.refuse("factors of rows and columns want whole rows and no groups");
  if (header.group > 0 || header.kind == CodebookKind::rank1) {
    if (header.cols == 0 || header.count % header.cols != 0)
      in.refuse(fmt::format("{} weights are no whole number of rows of {}", header.count, header.cols));
    if (header.group > 0) books = header.count / header.cols * ceil_div(header.cols, header.group);  // <= count
  }
  const std::uint64_t size = numbers_per_codebook(header.kind, header.levels) * number_bytes(header.level_type);
  if (books > in.left() / size)
    in.refuse(fmt::format("{} codebooks of {} bytes, {} bytes are left", books, size, in.left()));
  const std::uint64_t numbers = books * numbers_per_codebook(header.kind, header.levels);
  if (header.kind != CodebookKind::rank1) return numbers;
  const std::uint64_t most = in.left() / number_bytes(header.level_type), rows = header.count / header.cols;
  if (header.cols > most || rows > most - header.cols || numbers > most - header.cols - rows)
    in.refuse(fmt::format("factors of {} rows and {} columns, {} bytes are left", rows, header.cols, in.left()));
  return rows + header.cols + numbers;
}

void check_coder(const RecordHeader& header, ByteReader& in) {
  const Coder& coder = *find_coder(header.coder);
  if (header.code_bits != 0 && (header.code_bits < coder.least_bits || header.code_bits > coder.most_bits))
    in.refuse(fmt::format("{} code bits, expected 0 or {}..{}", header.code_bits, coder.least_bits, coder.most_bits));
  if (header.code_bits == 0 || coder.detail) {
    if (header.detail >= header.levels) in.refuse(fmt::format("code {} with {} levels", header.detail, header.levels));
  } else if (header.detail != 0) {
    in.refuse("a detail that this coder does not have");
  }
  if (header.level_type == LevelType::f32 ? header.exponent != 0
                                          : header.exponent < kMinHalfExponent || header.exponent > kMaxHalfExponent)
    in.refuse(fmt::format("exponent {} of the levels", header.exponent));
}

RecordHeader take_header(ByteReader& in) {
  if (in.le<std::uint32_t>("magic") != kRecordMagic) in.refuse("this is no record: it does not begin with LMQR");
  const auto version = in.le<std::uint8_t>("version");
  if (version != kRecordVersion)
    in.refuse(fmt::format("record version {}, this program reads {}", version, kRecordVersion));
  RecordHeader header;
  const Coder& coder = take_coder(in);
  if (version < coder.first_version)
    in.refuse(fmt::format("coder {} in a record of version {}, it came with {}", name_of(coder), version,
                          coder.first_version));
  header.coder = coder.id;
  header.code_bits = in.le<std::uint8_t>("code bits");
  header.detail = in.le<std::uint8_t>("detail");
  header.kind = take_enum<CodebookKind>(in, 0, 4, "codebook kind");
  header.level_type = take_enum<LevelType>(in, 0, 1, "level type");
  header.source = take_dtype(in);
  header.exponent = in.le<std::int8_t>("exponent");
  header.method = in.le<std::uint16_t>("method");
  header.levels = in.le<std::uint16_t>("levels");
  if (header.levels < 1 || header.levels > 256) in.refuse(fmt::format("{} levels, expected 1..256", header.levels));
  if (header.kind == CodebookKind::bases && (header.levels < 2 || !std::has_single_bit(header.levels)))
    in.refuse(fmt::format("{} levels of bases, expected a power of two", header.levels));
  header.count = in.le<std::uint64_t>("weights");
  if (header.count > kMaxRecordCount) in.refuse(fmt::format("{} weights, at most {}", header.count, kMaxRecordCount));
  header.cols = in.le<std::uint64_t>("columns");
  header.group = in.le<std::uint64_t>("group");
  check_coder(header, in);
  return header;
}

std::vector<float> take_book(const RecordHeader& header, ByteReader& in) {
  const std::uint64_t numbers = count_numbers(header, in);
  std::vector<float> book;
  if (header.level_type == LevelType::f32) {
    book = in.array<float>(numbers, "codebooks");
  } else {
    const auto halves = in.array<std::uint16_t>(numbers, "codebooks");
    book.resize(halves.size());
    std::ranges::transform(halves, book.begin(),
                           [&](std::uint16_t half) { return from_scaled_half(half, header.exponent); });
  }
  if (!std::ranges::all_of(book, [](float x) { return std::isfinite(x); }))
    in.refuse("a codebook number is not finite");
  for (float& number : book) number += 0.0F;  // -0 becomes +0, all others stay
  return book;
}

}  // namespace

RecordHeader read_record_header(std::span<const std::byte> record, const std::string& source) {
  if (is_trellis_record(record)) return read_trellis_header(record, source);
  ByteReader in(record, source);
  const RecordHeader header = take_header(in);
  if (in.left() < kChecksumBytes) in.refuse("the record ends before its checksum");
  (void)count_numbers(header, in);
  return header;
}

std::span<const std::byte> check_record(std::span<const std::byte> record, const std::string& source) {
  if (record.size() < kChecksumBytes)
    ByteReader(record, source)
        .refuse(fmt::format("{} bytes are no record, which has at least {}", record.size(), kChecksumBytes));
  const auto body = record.first(record.size() - kChecksumBytes);
  std::uint64_t checksum;
  std::memcpy(&checksum, record.data() + body.size(), kChecksumBytes);
  if (const std::uint64_t found = digest64(body); found != checksum)
    ByteReader(record, source)
        .refuse(fmt::format("the checksum of the record is {}, it says {}: the bytes are damaged", hex(found),
                            hex(checksum)));
  return body;
}

RecordParts open_record(std::span<const std::byte> record, const std::string& source) {
  if (is_trellis_record(record))
    ByteReader(record, source).refuse("codes of a trellis have no codebook: decode_trellis_record reads them");
  ByteReader in(check_record(record, source), source);
  RecordParts parts;
  parts.header = take_header(in);
  parts.book = take_book(parts.header, in);
  if (parts.header.code_bits > 0 && parts.header.count == 0) in.refuse("a coder without codes");
  if (parts.header.code_bits > 0) find_coder(parts.header.coder)->open(parts, in);
  if (in.left() != 0) in.refuse(fmt::format("{} bytes follow the last field", in.left()));
  return parts;
}

}  // namespace lmq
