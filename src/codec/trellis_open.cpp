#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <cstring>

#include "layout.hpp"
#include "lmq/base/bytes.hpp"
#include "lmq/base/digest.hpp"
#include "lmq/codec/trellis_record.hpp"
#include "lmq/kernels/trellis.hpp"
#include "lmq/kernels/trellis_decode.hpp"
#include "trellis_layout.hpp"

namespace lmq {
namespace {

std::uint64_t take_varint(ByteReader& in, const char* field) {
  std::uint64_t value = 0;
  for (unsigned shift = 0; shift < 35; shift += 7) {
    const auto byte = in.le<std::uint8_t>(field);
    value |= std::uint64_t{byte & 0x7FU} << shift;
    if (byte < 0x80) return value;
  }
  in.refuse(fmt::format("{}: a number of more than five bytes", field));
}

/// Fields before the side information; rows times columns is at most what a record holds.
TrellisUnit take_fields(ByteReader& in) {
  TrellisUnit unit;
  if (in.le<std::uint32_t>("magic") != kRecordMagic || in.le<std::uint8_t>("version") != kTrellisVersion)
    in.refuse("this is no record of a trellis");
  unit.states = in.le<std::uint8_t>("states");
  if (!is_trellis_states(unit.states)) in.refuse(fmt::format("{} states, expected 1, 4, 8, 16 or 32", unit.states));
  const auto id = in.le<std::uint8_t>("source type");
  const auto type = dtype_from_id(id);
  if (!type) in.refuse(fmt::format("source type {} is unknown", id));
  unit.source = *type;
  unit.method = in.le<std::uint16_t>("method");
  unit.rows = take_varint(in, "rows");
  unit.cols = take_varint(in, "columns");
  unit.lane_rows = take_varint(in, "rows of a lane");
  std::uint64_t count = 0;
  if (!checked_mul(unit.rows, unit.cols, count) || count > kMaxRecordCount)
    in.refuse(fmt::format("{} rows of {} weights, at most {} in all", unit.rows, unit.cols, kMaxRecordCount));
  if (unit.lane_rows < 1 || unit.lane_rows > std::max<std::uint64_t>(unit.rows, 1) || unit.lanes() > kMaxTrellisLanes)
    in.refuse(fmt::format("lanes of {} rows of {}, at most {} lanes", unit.lane_rows, unit.rows, kMaxTrellisLanes));
  unit.step = in.le<float>("step");
  if (!(unit.step > 0) || !std::isfinite(unit.step)) in.refuse("the step is no number above 0");
  return unit;
}

/// Refuses steps whose products with the largest code are no floats.
void check_steps(const TrellisUnit& unit, const ByteReader& in) {
  int row = -kMaxEighths, col = -kMaxEighths;
  for (const int eighths : unit.row_step) row = std::max(row, eighths);
  for (const int eighths : unit.col_step) col = std::max(col, eighths);
  const double largest = double{unit.step} * octave_eighths(row) * octave_eighths(col) * (4.0 * kMaxTrellisCode);
  const float factor = unit.step * octave_eighths(row);
  if (largest > 0x1p127 || !std::isfinite(factor)) in.refuse("weights that are no floats");
}

/// Codes and values of all lanes, side by side until rows of tile_cols columns are whole.
class LaneDecoder {
 public:
  LaneDecoder(const TrellisParts& parts, bool codes)
      : unit_(parts.unit), lane_rows_(static_cast<std::size_t>(unit_.lane_rows)), lanes_(unit_.lanes()) {
    d_.stride = lanes_ < kFewestVectorLanes ? lanes_ : std::max<std::size_t>(16, std::bit_ceil(lanes_));
    d_.tile_cols = static_cast<std::size_t>(std::min<std::uint64_t>(16, unit_.cols));
    d_.last_lane_rows = static_cast<std::size_t>(unit_.rows - (lanes_ - 1) * unit_.lane_rows);
    row_spread_.assign(lane_rows_ * d_.stride, unit_.row_spread[0]);
    row_factor_.assign(lane_rows_ * d_.stride, 0.0F);
    for (std::uint64_t row = 0; row < unit_.rows; ++row) {
      const std::size_t at = row % lane_rows_ * d_.stride + row / lane_rows_;
      row_spread_[at] = unit_.row_spread[row];
      row_factor_[at] = unit_.step * octave_eighths(unit_.row_step[row]);
    }
    for (const int eighths : unit_.col_step) col_factor_.push_back(octave_eighths(eighths));
    values_.resize(lane_rows_ * d_.tile_cols * d_.stride);
    if (codes) codes_.resize(values_.size());
    d_.row_spread = row_spread_.data(), d_.col_spread = unit_.col_spread.data();
    d_.row_factor = row_factor_.data(), d_.col_factor = col_factor_.data();
    d_.values = values_.data(), d_.codes = codes ? codes_.data() : nullptr;
  }

  /// False where the words are none of these weights. One of the two is empty.
  bool decode(const TrellisTables& tables, TrellisCursor& cursor, std::span<float> values,
              std::span<std::int32_t> codes) {
    bool good = true;
    for_each_diagonal(unit_.lane_rows, unit_.cols, [&](std::size_t first_row, std::size_t rows, std::size_t first_col) {
      if (!good) return;
      d_.first_row = first_row, d_.rows = rows, d_.first_col = first_col;
      good = trellis_decode(tables, cursor, d_);
      const std::size_t late = first_col % d_.tile_cols;  // steps until a tile of columns begins
      for (std::size_t s = late == 0 ? 0 : d_.tile_cols - late; good && s < rows; s += d_.tile_cols) {
        if (!values.empty()) flush(values_, first_row - s, first_col + s, values);
        if (!codes.empty()) flush(codes_, first_row - s, first_col + s, codes);
      }
    });
    return good;
  }

 private:
  template <class Number>
  void flush(const std::vector<Number>& tile, std::size_t row, std::size_t col, std::span<Number> to) const {
    const std::size_t cols = static_cast<std::size_t>(unit_.cols), width = std::min(d_.tile_cols, cols - col);
    const std::size_t lanes = row < d_.last_lane_rows ? lanes_ : lanes_ - 1;
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      const Number* from = tile.data() + row * d_.tile_cols * d_.stride + lane;
      Number* into = to.data() + (lane * lane_rows_ + row) * cols + col;
      for (std::size_t c = 0; c < width; ++c) into[c] = from[c * d_.stride];
    }
  }

  const TrellisUnit& unit_;
  std::size_t lane_rows_;
  std::size_t lanes_;
  TrellisDiagonal d_;
  std::vector<std::int8_t> row_spread_;
  std::vector<float> row_factor_, col_factor_, values_;
  std::vector<std::int32_t> codes_;
};

void decode_lanes(const TrellisParts& parts, std::span<float> values, std::span<std::int32_t> codes,
                  const std::string& source) {
  const TrellisUnit& unit = parts.unit;
  if (unit.rows == 0 || unit.cols == 0) return;
  const auto [low_row, high_row] = std::ranges::minmax(unit.row_spread);
  const auto [low_col, high_col] = std::ranges::minmax(unit.col_spread);
  const auto kept = [](int spread) { return std::clamp(spread, 0, static_cast<int>(kSpreadClasses) - 1); };
  thread_local TrellisTables tables;
  make_trellis_tables(parts.family, unit.states, kept(low_row + low_col), kept(high_row + high_col), tables);
  TrellisCursor cursor;
  cursor.lanes = parts.states.size();
  std::ranges::copy(parts.states, cursor.state.begin());
  cursor.word = parts.words.data(), cursor.end = cursor.word + parts.words.size();
  const bool good = LaneDecoder(parts, !codes.empty()).decode(tables, cursor, values, codes);
  const bool whole = std::all_of(cursor.state.begin(), cursor.state.begin() + static_cast<std::ptrdiff_t>(cursor.lanes),
                                 [](std::uint32_t x) { return x == kTrellisLow; });
  if (!good || cursor.word != cursor.end || !whole)
    fail(Errc::malformed, fmt::format("{}: the record's words are not the codes of {} rows of {} weights", source,
                                      unit.rows, unit.cols));
}
}  // namespace

bool is_trellis_record(std::span<const std::byte> record) noexcept {
  return record.size() > 4 && std::memcmp(record.data(), &kRecordMagic, 4) == 0 &&
         record[4] == std::byte{kTrellisVersion};
}

RecordHeader read_trellis_header(std::span<const std::byte> record, const std::string& source) {
  ByteReader in(record, source);
  const TrellisUnit unit = take_fields(in);
  if (in.left() < kChecksumBytes) in.refuse("the record ends before its checksum");
  RecordHeader header;
  header.method = unit.method;
  header.source = unit.source;
  header.count = unit.rows * unit.cols;
  header.cols = unit.cols;
  header.kind = CodebookKind::trellis;
  header.coder = CoderChoice::rans;
  header.code_bits = kSpreadBits;
  return header;
}

TrellisParts open_trellis_record(std::span<const std::byte> record, std::uint64_t weights, const std::string& source) {
  ByteReader in(check_record(record, source), source);
  TrellisParts parts{.unit = take_fields(in), .family = spread_family(), .states = {}, .words = {}};
  TrellisUnit& unit = parts.unit;
  if (unit.rows * unit.cols != weights)
    fail(Errc::malformed,
         fmt::format("{}: the record holds {} weights, expected {}", source, unit.rows * unit.cols, weights));
  const std::uint64_t side = take_varint(in, "bytes of steps and classes");
  if (!read_side(in.raw(side, "steps and classes"), unit, parts.family))
    in.refuse("steps, classes and tables are none");
  check_steps(unit, in);
  parts.states = in.array<std::uint32_t>(weights == 0 ? 0 : unit.lanes(), "states");
  if (!std::ranges::all_of(parts.states, [](std::uint32_t x) { return x >= kTrellisLow; }))
    in.refuse("a coder state is none");
  if (in.left() % 2 != 0) in.refuse("half a word");
  if (weights == 0 && in.left() != 0) in.refuse("words without weights");
  parts.words = in.raw(in.left(), "words");
  return parts;
}

TrellisUnit decode_trellis_record(std::span<const std::byte> record, const std::string& source) {
  TrellisParts parts = open_trellis_record(record, read_trellis_header(record, source).count, source);
  std::vector<std::int32_t> codes(static_cast<std::size_t>(parts.unit.rows * parts.unit.cols));
  decode_lanes(parts, {}, codes, source);
  parts.unit.codes = std::move(codes);
  return std::move(parts.unit);
}

void decode_trellis_values(std::span<const std::byte> record, std::span<float> values, const std::string& source) {
  const TrellisParts parts = open_trellis_record(record, values.size(), source);
  decode_lanes(parts, values, {}, source);
}

}  // namespace lmq
