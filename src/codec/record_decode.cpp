#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>

#include "huffman_blocks.hpp"
#include "layout.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/codec/record.hpp"
#include "lmq/codec/trellis_record.hpp"
#include "lmq/kernels/pack.hpp"
#include "rans_blocks.hpp"
#include "trellis_layout.hpp"

namespace lmq {
namespace {
/// Codes that are decoded before they become values: they stay in the nearest cache. A multiple of lanes and of 8.
constexpr std::size_t kTile = 4096;
static_assert(kMostTail <= kTile);

[[noreturn]] void damaged(const std::string& source, std::uint64_t block, const char* what) {
  fail(Errc::malformed, fmt::format("{}: block {} of the record: {}", source, block, what));
}

/// Turns the codes of a payload, portion by portion, into something; portions of one block come in order.
class CodeSource {
 public:
  CodeSource(const RecordParts& parts, const std::string& source) : parts_(parts), source_(source) {
    if (parts.header.coder == CoderChoice::rans && parts.header.code_bits > 0)
      make_rans_decode_table(parts.model, table());
    if (huffman()) make_huffman_decode_table(parts.words, words());
  }

  /// Blocks in parallel. place(begin, count): where the next codes go; used(begin, codes): they are there.
  template <class Place, class Use>
  void decode(const Place& place, const Use& used) const {
    const Tables shared{table(), words()};
    parallel_for(static_cast<std::size_t>(block_count(parts_.header.count)), [&](std::size_t block) {
      std::array<Code, kTile> scratch;
      Cursors cursor = start(block);
      const std::uint64_t begin = block * kBlockCodes, count = block_codes(parts_.header.count, block);
      const std::uint64_t plain = count - (coded() ? parts_.starts[block].tail : 0);
      for (std::uint64_t done = 0; done < plain; done += kTile) {
        const auto size = static_cast<std::size_t>(std::min<std::uint64_t>(kTile, plain - done));
        const std::span<Code> codes = place(begin + done, std::span(scratch).first(size));
        fill(shared, block, begin + done, cursor, codes);
        used(begin + done, std::span<const Code>(codes));
      }
      if (huffman() && !huffman_finished(cursor.words)) damaged(source_, block, "codes do not end with their streams");
      if (!coded()) return;
      const std::span<Code> codes = place(begin + plain, std::span(scratch).first(count - plain));
      if (!decode_rans_tail(shared.rans, cursor.rans, codes))
        damaged(source_, block, "coder states do not end where coding began");
      used(begin + plain, std::span<const Code>(codes));
    });
  }

 private:
  struct Tables {
    const RansDecodeTable& rans;
    const HuffmanDecodeTable& words;
  };
  struct Cursors {
    RansCursor rans;
    HuffmanCursor words;
  };
  [[nodiscard]] bool huffman() const noexcept {
    return parts_.header.coder == CoderChoice::huffman && parts_.header.code_bits > 0;
  }
  [[nodiscard]] bool coded() const noexcept {
    return parts_.header.coder == CoderChoice::rans && parts_.header.code_bits > 0;
  }
  static RansDecodeTable& table() {
    thread_local RansDecodeTable table;
    return table;
  }
  static HuffmanDecodeTable& words() {
    thread_local HuffmanDecodeTable table;
    return table;
  }
  [[nodiscard]] Cursors start(std::size_t block) const {
    if (huffman()) return {{}, huffman_cursor(parts_.blocks[block], block_codes(parts_.header.count, block))};
    return {coded() ? parts_.starts[block].cursor : RansCursor(), {}};
  }
  void fill(const Tables& shared, std::size_t block, std::uint64_t begin, Cursors& cursor,
            std::span<Code> codes) const {
    const RecordHeader& header = parts_.header;
    if (header.code_bits == 0) {
      std::ranges::fill(codes, header.detail);
    } else if (coded()) {
      if (!rans_decode(shared.rans, cursor.rans, codes)) damaged(source_, block, "codes end early");
    } else if (huffman()) {
      if (!huffman_decode(shared.words, cursor.words, codes)) damaged(source_, block, "codes end early");
    } else if (header.coder == CoderChoice::planes) {
      std::ranges::fill(codes, Code{0});
      for (unsigned j = 0; j < header.code_bits; ++j)
        unpack_plane(parts_.blocks[j].subspan(begin / 8, packed_bytes(codes.size(), 1)), header.code_bits - 1 - j,
                     codes);
      check_codes(block, codes);
    } else {
      unpack_codes(parts_.blocks[0].subspan(begin / 8 * header.code_bits, packed_bytes(codes.size(), header.code_bits)),
                   header.code_bits, codes);
      check_codes(block, codes);
    }
  }
  void check_codes(std::size_t block, std::span<const Code> codes) const {
    if (parts_.header.levels < 1U << parts_.header.code_bits && std::ranges::max(codes) >= parts_.header.levels)
      damaged(source_, block, "a code exceeds the levels");
  }

  const RecordParts& parts_;
  const std::string& source_;
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
}  // namespace

QuantizedUnit decode_record(std::span<const std::byte> record, const std::string& source) {
  RecordParts parts = open_record(record, source);
  const RecordHeader& header = parts.header;
  QuantizedUnit unit{.method = header.method,
                     .source = header.source,
                     .count = header.count,
                     .cols = header.cols,
                     .group = header.group,
                     .kind = header.kind,
                     .level_type = header.level_type,
                     .levels = header.levels,
                     .book = {},
                     .codes = {}};
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

}  // namespace lmq
