#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "coders.hpp"
#include "layout.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/codec/record.hpp"
#include "lmq/codec/trellis_record.hpp"
#include "lmq/kernels/pack.hpp"
#include "trellis_layout.hpp"

namespace lmq {
namespace {
/// Codes that are decoded before they become values: they stay in the nearest cache. A multiple of lanes and of 8.
constexpr std::size_t kTile = 4096;
static_assert(kMaxTail <= kTile);

[[noreturn]] void damaged(const std::string& source, std::uint64_t block, const char* what) {
  fail(Errc::malformed, fmt::format("{}: block {} of the record: {}", source, block, what));
}

/// Turns the codes of a payload, portion by portion, into something; portions of one block come in order.
class CodeSource {
 public:
  CodeSource(const RecordParts& parts, const std::string& source)
      : parts_(parts), source_(source), coder_(parts.header.code_bits > 0 ? find_coder(parts.header.coder) : nullptr) {
    if (coder_ != nullptr) coder_->prepare(parts, decode_tables());
  }

  /// Blocks in parallel. place(begin, count): where the next codes go; used(begin, codes): they are there.
  template <class Place, class Use>
  void decode(const Place& place, const Use& used) const {
    const DecodeTables& tables = decode_tables();
    parallel_for(static_cast<std::size_t>(block_count(parts_.header.count)), [&](std::size_t block) {
      std::array<Code, kTile> scratch;
      BlockCursor cursor = coder_ != nullptr ? coder_->start(parts_, block) : BlockCursor();
      const std::uint64_t begin = block * kBlockCodes, count = block_codes(parts_.header.count, block);
      const std::uint64_t plain = count - (coder_ != nullptr ? coder_->tail(parts_, block) : 0);
      for (std::uint64_t done = 0; done < plain; done += kTile) {
        const auto size = static_cast<std::size_t>(std::min<std::uint64_t>(kTile, plain - done));
        const std::span<Code> codes = place(begin + done, std::span(scratch).first(size));
        if (coder_ == nullptr)
          std::ranges::fill(codes, parts_.header.detail);
        else if (const char* what = coder_->fill(parts_, tables, cursor, begin + done, codes))
          damaged(source_, block, what);
        used(begin + done, std::span<const Code>(codes));
      }
      if (coder_ == nullptr) return;
      const auto rest = static_cast<std::size_t>(count - plain);
      const std::span<Code> codes = rest > 0 ? place(begin + plain, std::span(scratch).first(rest)) : std::span<Code>();
      if (const char* what = coder_->finish(tables, cursor, codes)) damaged(source_, block, what);
      if (rest > 0) used(begin + plain, std::span<const Code>(codes));
    });
  }

 private:
  const RecordParts& parts_;
  const std::string& source_;
  const Coder* coder_;  // none: all codes are the same
};

/// Values of codes by the codebook that serves their place.
class Dequantizer {
 public:
  explicit Dequantizer(const RecordParts& parts)
      : header_(parts.header),
        book_(parts.book),
        numbers_(static_cast<std::size_t>(numbers_per_codebook(header_.kind, header_.levels))),
        row_groups_(header_.group > 0 ? ceil_div(header_.cols, header_.group) : 0) {}

  void operator()(std::uint64_t begin, std::span<const Code> codes, std::span<float> values) const {
    if (header_.kind == CodebookKind::rank1) return scaled(begin, codes, values);
    if (header_.group == 0) return one(0, codes, values);
    std::uint64_t row = begin / header_.cols, col = begin % header_.cols;
    for (std::size_t done = 0; done < codes.size();) {
      const std::uint64_t group = col / header_.group;
      const std::uint64_t left_in_group = std::min(header_.group - col % header_.group, header_.cols - col);
      const auto run = static_cast<std::size_t>(std::min<std::uint64_t>(left_in_group, codes.size() - done));
      one(row * row_groups_ + group, codes.subspan(done, run), values.subspan(done, run));
      done += run, col += run;
      if (col == header_.cols) ++row, col = 0;
    }
  }

 private:
  void one(std::uint64_t index, std::span<const Code> codes, std::span<float> values) const {
    const auto book = book_.subspan(index * numbers_, numbers_);
    if (header_.kind == CodebookKind::table) return table_values(codes, book, values);
    if (header_.kind == CodebookKind::grid) return grid_values(codes, book[0], book[1], values);
    std::array<float, 256> room;
    const auto levels = std::span(room).first(header_.levels);
    expand_levels(header_.kind, book, levels);
    table_values(codes, levels, values);
  }

  /// Numbers of the codes, times the factors of their rows and columns.
  void scaled(std::uint64_t begin, std::span<const Code> codes, std::span<float> values) const {
    table_values(codes, book_.last(numbers_), values);
    const auto columns = book_.subspan(book_.size() - numbers_ - header_.cols, header_.cols);
    std::uint64_t row = begin / header_.cols, col = begin % header_.cols;
    for (std::size_t done = 0; done < values.size(); ++row, col = 0) {
      const auto run = static_cast<std::size_t>(std::min<std::uint64_t>(header_.cols - col, values.size() - done));
      scale_values(book_[row], columns.subspan(col, run), values.subspan(done, run));
      done += run;
    }
  }

  const RecordHeader& header_;
  std::span<const float> book_;
  std::size_t numbers_;
  std::uint64_t row_groups_;
};

QuantizedUnit unit_of(const RecordHeader& header, std::vector<float> book) {
  return {.method = header.method,
          .source = header.source,
          .count = header.count,
          .cols = header.cols,
          .group = header.group,
          .kind = header.kind,
          .level_type = header.level_type,
          .levels = header.levels,
          .book = std::move(book),
          .codes = {}};
}
}  // namespace

QuantizedUnit decode_record_book(std::span<const std::byte> record, const std::string& source) {
  RecordParts parts = open_record(record, source);
  return unit_of(parts.header, std::move(parts.book));
}

QuantizedUnit decode_record(std::span<const std::byte> record, const std::string& source) {
  RecordParts parts = open_record(record, source);
  const RecordHeader& header = parts.header;
  QuantizedUnit unit = unit_of(header, {});
  unit.codes.resize(static_cast<std::size_t>(header.count));
  CodeSource(parts, source)
      .decode([&](std::uint64_t begin, std::span<Code> s) { return std::span(unit.codes).subspan(begin, s.size()); },
              [](std::uint64_t, std::span<const Code>) {});
  unit.book = std::move(parts.book);
  return unit;
}

void decode_record_values(std::span<const std::byte> record, std::span<float> values, const std::string& source) {
  if (is_trellis_record(record)) return decode_trellis_values(record, values, source);
  const RecordParts parts = open_record(record, source);
  if (values.size() != parts.header.count)
    fail(Errc::malformed,
         fmt::format("{}: the record holds {} weights, expected {}", source, parts.header.count, values.size()));
  const Dequantizer dequantize(parts);
  CodeSource(parts, source)
      .decode([](std::uint64_t, std::span<Code> scratch) { return scratch; },
              [&](std::uint64_t begin, std::span<const Code> codes) {
                dequantize(begin, codes, values.subspan(begin, codes.size()));
              });
}

void decode_record_pieces(std::span<const std::byte> record, const std::string& source,
                          const std::function<void(std::uint64_t begin, std::span<const float> values)>& use) {
  if (is_trellis_record(record)) {
    std::vector<float> values(static_cast<std::size_t>(read_record_header(record, source).count));
    decode_trellis_values(record, values, source);
    for (std::size_t begin = 0; begin < values.size(); begin += kRecordPiece)
      use(begin, std::span<const float>(values).subspan(begin, std::min(kRecordPiece, values.size() - begin)));
    return;
  }
  static_assert(kRecordPiece == kTile && kBlockCodes % kTile == 0);
  const RecordParts parts = open_record(record, source);
  const Dequantizer dequantize(parts);
  CodeSource(parts, source)
      .decode([](std::uint64_t, std::span<Code> scratch) { return scratch; },
              [&](std::uint64_t begin, std::span<const Code> codes) {
                // The codes of a piece come in one or two portions, one after the other on one thread.
                thread_local std::array<float, kTile> piece;
                const auto offset = static_cast<std::size_t>(begin % kTile);
                dequantize(begin, codes, std::span(piece).subspan(offset, codes.size()));
                const std::uint64_t end = begin + codes.size();
                if (end % kTile == 0 || end == parts.header.count)
                  use(begin - offset, std::span<const float>(piece).first(offset + codes.size()));
              });
}

}  // namespace lmq
