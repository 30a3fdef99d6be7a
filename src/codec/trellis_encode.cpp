#include <fmt/format.h>

#include <array>
#include <cmath>
#include <utility>

#include "layout.hpp"
#include "lmq/base/bytes.hpp"
#include "lmq/base/digest.hpp"
#include "lmq/codec/trellis_record.hpp"
#include "lmq/kernels/rate_cells.hpp"
#include "lmq/kernels/trellis.hpp"
#include "lmq/kernels/trellis_decode.hpp"
#include "trellis_layout.hpp"

namespace lmq {
namespace {

[[noreturn]] void contradiction(const std::string& what) { fail(Errc::internal, "trellis record to encode: " + what); }

void check(const TrellisUnit& unit) {
  std::uint64_t count = 0;
  if (!is_trellis_states(unit.states)) contradiction(fmt::format("{} states", unit.states));
  if (!checked_mul(unit.rows, unit.cols, count) || count > kMaxRecordCount)
    contradiction(fmt::format("{} rows of {} weights, at most {} in all", unit.rows, unit.cols, kMaxRecordCount));
  if (unit.codes.size() != count) contradiction(fmt::format("{} codes of {} weights", unit.codes.size(), count));
  if (unit.lane_rows < 1 || unit.lanes() > kMaxTrellisLanes)
    contradiction(fmt::format("lanes of {} rows of {}, at most {} lanes", unit.lane_rows, unit.rows, kMaxTrellisLanes));
  if (unit.row_step.size() != unit.rows || unit.row_spread.size() != unit.rows || unit.col_step.size() != unit.cols ||
      unit.col_spread.size() != unit.cols)
    contradiction("steps and classes of other rows and columns");
  for (const auto* steps : {&unit.row_step, &unit.col_step})
    for (const int eighths : *steps)
      if (std::abs(eighths) > kMaxEighths) contradiction(fmt::format("a step of {} eighths of an octave", eighths));
  for (const std::int32_t k : unit.codes)
    if (k > kMaxTrellisCode || k < -kMaxTrellisCode) contradiction(fmt::format("a code of {}", k));
  if (!(unit.step > 0) || !std::isfinite(unit.step)) contradiction(fmt::format("a step of {}", unit.step));
}

constexpr std::uint32_t kCounted = 64;
using TableCounts = std::array<std::array<std::uint64_t, kCounted>, kSpreadTables>;

/// A code as its table sees it.
struct Split {
  std::int32_t high = 0;
  std::uint16_t low = 0;
  std::uint8_t table = 0, raw = 0;
};
static_assert(sizeof(Split) == 8);

/// Codes in the order of coding, [step][lane] over all diagonals, and how often tables met magnitudes.
struct Walk {
  std::vector<Split> codes;
  TableCounts counts{};
  std::uint64_t raw_bits = 0;
};

/// What a class's codes use, by quantizer.
struct Choice {
  std::uint8_t table = 0, raw = 0;
  bool zero = false;  ///< of the table
};
using Choices = std::array<std::array<Choice, 2>, kSpreadClasses>;
Choices choices_of(unsigned states) {
  Choices choices;
  for (unsigned spread = 0; spread < kSpreadClasses; ++spread)
    for (unsigned q = 0; q < 2; ++q) {
      const SpreadChoice choice = spread_choice(states, q, spread);
      choices[spread][q] = {static_cast<std::uint8_t>(choice.table), static_cast<std::uint8_t>(choice.raw),
                            spread_family()[choice.table].zero};
    }
  return choices;
}

/// Weights of one diagonal.
struct DiagonalRange {
  std::size_t first_row, rows, first_col;
};
std::vector<DiagonalRange> diagonals_of(const TrellisUnit& unit) {
  std::vector<DiagonalRange> made;
  for_each_diagonal(unit.lane_rows, unit.cols, [&](std::size_t first_row, std::size_t rows, std::size_t first_col) {
    made.push_back({first_row, rows, first_col});
  });
  return made;
}

/// The codes that the next diagonals need, [rows][kCols]: diagonals touch a line of memory for every code, often a page.
class CodeTile {
 public:
  explicit CodeTile(const TrellisUnit& unit)
      : codes_(unit.codes), cols_(static_cast<std::size_t>(unit.cols)), tile_(unit.rows * kCols) {}
  /// Columns of a row are asked for from the last on.
  [[nodiscard]] std::int32_t at(std::size_t row, std::size_t col) noexcept {
    if (col % kCols == kCols - 1 || col + 1 == cols_)
      std::copy_n(codes_.data() + row * cols_ + col / kCols * kCols, col % kCols + 1, tile_.data() + row * kCols);
    return tile_[row * kCols + col % kCols];
  }

 private:
  static constexpr std::size_t kCols = 16;
  const std::vector<std::int32_t>& codes_;
  std::size_t cols_;
  std::vector<std::int32_t> tile_;
};

class Walker {
 public:
  explicit Walker(const TrellisUnit& unit)
      : unit_(unit),
        lanes_(static_cast<std::size_t>(unit.lanes())),
        choices_(choices_of(unit.states)),
        taps_(trellis_taps(unit.states)),
        tile_(unit) {}
  [[nodiscard]] Walk run() && {
    walked_.codes.resize(unit_.lane_rows * unit_.cols * lanes_);
    std::array<unsigned, kMaxTrellisLanes> state{};
    Split* out = walked_.codes.data();
    for (const DiagonalRange& diagonal : diagonals_of(unit_)) {
      for (std::size_t lane = 0; lane < lanes_; ++lane)
        state[lane] = walk_lane(diagonal, lane, state[lane], out + lane);
      out += diagonal.rows * lanes_;
    }
    return std::move(walked_);
  }

 private:
  /// A lane's part of a diagonal; returns the state behind it.
  unsigned walk_lane(const DiagonalRange& diagonal, std::size_t lane, unsigned state, Split* out) {
    const std::size_t first = lane * static_cast<std::size_t>(unit_.lane_rows) + diagonal.first_row;
    const auto rows = static_cast<std::size_t>(unit_.rows);
    for (std::size_t s = first < rows ? 0 : first - rows + 1; s < diagonal.rows; ++s) {
      const std::size_t row = first - s, col = diagonal.first_col + s;
      const std::int32_t k = tile_.at(row, col);
      const Choice choice = choices_[spread_of(unit_, row, col)][state & 1];
      const std::int32_t high = k >> choice.raw;
      out[s * lanes_] = {high, static_cast<std::uint16_t>(k & ((1 << choice.raw) - 1)), choice.table, choice.raw};
      ++walked_.counts[choice.table][std::min(trellis_magnitude(choice.zero, high), kCounted - 1)];
      walked_.raw_bits += choice.raw;
      if (unit_.states > 1) state = trellis_next(taps_, state, k);
    }
    return state;
  }

  const TrellisUnit& unit_;
  std::size_t lanes_;
  Choices choices_;
  TrellisTaps taps_;
  CodeTile tile_;
  Walk walked_;
};

std::uint64_t price(const SpreadTable& table, std::span<const std::uint64_t> counts) noexcept {
  std::uint64_t bits = 0;
  for (std::uint32_t m = 0; m < kCounted; ++m) bits += counts[m] * code_bits_q16(table, m);
  return bits;
}

/// Tables that these counts pay for: a table takes at most 10 bits and 15 a frequency.
std::vector<bool> choose_tables(const TableCounts& counts, SpreadFamily& family) {
  std::vector<bool> own(family.size());
  for (std::size_t t = 0; t < family.size(); ++t) {
    const SpreadTable fitted = fit_spread_table(counts[t], family[t].zero);
    const std::uint64_t bits = 10 + 15 * std::uint64_t{fitted.magnitudes};
    own[t] = price(fitted, counts[t]) + (bits << 16) < price(family[t], counts[t]);
    if (own[t]) family[t] = fitted;
  }
  return own;
}

/// Order-0 entropy of the codes, table by table, signs and raw bits as they are.
double entropy_bits(const Walk& walked) {
  double bits = static_cast<double>(walked.raw_bits);
  for (std::size_t t = 0; t < walked.counts.size(); ++t) {
    const auto& counts = walked.counts[t];
    std::uint64_t total = 0;
    for (const std::uint64_t count : counts) total += count;
    bits += static_cast<double>(spread_family()[t].zero ? total - counts[0] : total);
    for (const std::uint64_t count : counts)
      if (count > 0) bits += double(count) * plain_log2(double(total) / double(count));
  }
  return bits;
}

/// A range of a table, and what divides by its frequency: floor(x / freq) = floor(x * inverse / 2^64) for every 32-bit
/// x, because inverse is above 2^64 / freq by less than 1. For freq = 1 that would be 2^64: its quotient is one less, and
/// the start 2^kSpreadBits - 1 more.
struct CodedRange {
  std::uint64_t inverse = 0;
  std::uint32_t start = 0, freq = 0;
  CodedRange() = default;
  explicit CodedRange(const SpreadSymbol& symbol) : start(symbol.start), freq(symbol.freq) {
    constexpr std::uint64_t kAll = ~std::uint64_t{0};
    if (freq == 1)
      inverse = kAll, start += (1U << kSpreadBits) - 1;
    else
      inverse = kAll / freq + 1;
  }
};

/// Lanes coded from the last weight to the first; words come in reverse.
class LaneCoder {
 public:
  LaneCoder(const TrellisUnit& unit, const SpreadFamily& family, const TableCounts& counts)
      : unit_(unit), family_(family) {
    for (std::size_t t = 0; t < family.size(); ++t) {
      if (std::ranges::all_of(counts[t], [](std::uint64_t count) { return count == 0; })) continue;
      for (std::uint32_t m = 0; m <= family[t].magnitudes; ++m)
        for (unsigned negative = 0; negative < 2; ++negative)
          ranges_[t][2 * m + negative] = CodedRange(symbol_range(family[t], m, negative != 0));
    }
    state_.fill(kTrellisLow);
  }
  void code(const Walk& walked) {
    const auto lanes = static_cast<std::size_t>(unit_.lanes());
    const std::vector<DiagonalRange> diagonals = diagonals_of(unit_);
    words_.resize(walked.codes.size() / 2);
    std::size_t at = walked.codes.size();
    for (std::size_t d = diagonals.size(); d-- > 0;)
      for (std::size_t s = diagonals[d].rows; s-- > 0;) {
        at -= lanes;
        const bool all = (lanes - 1) * unit_.lane_rows + diagonals[d].first_row - s < unit_.rows;
        step(std::span(walked.codes).subspan(at, all ? lanes : lanes - 1));
      }
  }
  [[nodiscard]] std::span<const std::uint32_t> states() const {
    return std::span(state_).first(unit_.codes.empty() ? 0 : unit_.lanes());
  }
  [[nodiscard]] std::span<const std::uint16_t> words_reversed() const noexcept {
    return std::span(words_).first(written_);
  }

 private:
  static constexpr std::size_t kMaxWords = 6;  ///< of a weight: its symbol, raw bits, four of an escape

  void step(std::span<const Split> codes) {
    if (words_.size() < written_ + kMaxWords * codes.size())
      words_.resize(2 * words_.size() + kMaxWords * codes.size());
    std::array<const CodedRange*, kMaxTrellisLanes> range;
    bool more = false;  // than symbols
    for (std::size_t lane = 0; lane < codes.size(); ++lane) {
      const Split& code = codes[lane];
      const SpreadTable& table = family_[code.table];
      const std::uint32_t magnitude = trellis_magnitude(table.zero, code.high);
      more |= code.raw > 0 || magnitude >= table.magnitudes;
      range[lane] =
          &ranges_[code.table][2 * std::min<std::uint32_t>(magnitude, table.magnitudes) + (code.high < 0 ? 1 : 0)];
    }
    if (more) {
      for (std::size_t lane = codes.size(); lane-- > 0;) escape(lane, codes[lane]);
      for (std::size_t lane = codes.size(); lane-- > 0;) raw(lane, codes[lane].low, codes[lane].raw);
    }
    for (std::size_t lane = codes.size(); lane-- > 0;) symbol(lane, *range[lane]);
  }
  /// The low word where `full`.
  void emit(std::uint32_t& x, bool full) noexcept {
    words_[written_] = static_cast<std::uint16_t>(x);
    written_ += full ? 1 : 0;
    x >>= full ? 16 : 0;
  }
  void symbol(std::size_t lane, const CodedRange& range) noexcept {
    std::uint32_t x = state_[lane];
    emit(x, x >= range.freq << (32 - kSpreadBits));
    const auto quotient = static_cast<std::uint32_t>(static_cast<unsigned __int128>(range.inverse) * x >> 64);
    state_[lane] = (quotient << kSpreadBits) + (x - quotient * range.freq) + range.start;
  }
  void raw(std::size_t lane, std::uint32_t value, unsigned bits) noexcept {
    if (bits == 0) return;
    emit(state_[lane], state_[lane] >= 1U << (32 - bits));
    state_[lane] = state_[lane] << bits | value;
  }
  void escape(std::size_t lane, const Split& code) noexcept {
    const SpreadTable& table = family_[code.table];
    const std::uint32_t magnitude = trellis_magnitude(table.zero, code.high);
    if (magnitude < table.magnitudes) return;
    const std::uint32_t beyond = magnitude - table.magnitudes + 1;
    const auto width = static_cast<std::uint32_t>(std::bit_width(beyond)) - 1, rest = beyond ^ 1U << width;
    raw(lane, code.high < 0 ? 1 : 0, 1);
    if (width > kEscapePart) raw(lane, rest >> kEscapePart, width - kEscapePart);
    raw(lane, rest & ((1U << kEscapePart) - 1), std::min(width, kEscapePart));
    raw(lane, width, kEscapeWidthBits);
  }

  const TrellisUnit& unit_;
  const SpreadFamily& family_;
  std::array<std::array<CodedRange, 2 * kMaxMagnitudes + 2>, kSpreadTables> ranges_{};
  std::array<std::uint32_t, kMaxTrellisLanes> state_{};
  std::vector<std::uint16_t> words_;  ///< room; `written_` of them
  std::size_t written_ = 0;
};

void put_varint(ByteWriter& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.le(static_cast<std::uint8_t>(value | 0x80));
  out.le(static_cast<std::uint8_t>(value));
}

}  // namespace

EncodedRecord encode_trellis_record(const TrellisUnit& unit) {
  check(unit);
  const Walk walked = Walker(unit).run();
  SpreadFamily family = spread_family();
  const std::vector<bool> own = choose_tables(walked.counts, family);
  LaneCoder lanes(unit, family, walked.counts);
  if (!unit.codes.empty()) lanes.code(walked);
  const std::vector<std::byte> side = write_side(unit, family, own);
  ByteWriter out;
  EncodedRecord record;
  out.le(kRecordMagic);
  out.le(kTrellisVersion);
  out.le(static_cast<std::uint8_t>(unit.states));
  out.le(static_cast<std::uint8_t>(unit.source));
  out.le(unit.method);
  for (const std::uint64_t number : {unit.rows, unit.cols, unit.lane_rows}) put_varint(out, number);
  out.le(unit.step);
  put_varint(out, side.size());
  record.ledger.header = out.size() + kChecksumBytes;
  out.raw(side);
  record.ledger.codebooks = side.size();
  out.array<std::uint32_t>(lanes.states());
  record.ledger.tables = 4 * lanes.states().size();
  const std::vector<std::uint16_t> words(lanes.words_reversed().rbegin(), lanes.words_reversed().rend());
  out.array<std::uint16_t>(words);
  record.ledger.codes = 2 * words.size();
  out.le(digest64(out.bytes()));
  record.bytes = out.take();
  record.entropy_bits = entropy_bits(walked);
  return record;
}

}  // namespace lmq
