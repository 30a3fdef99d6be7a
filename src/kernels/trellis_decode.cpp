#include "lmq/kernels/trellis_decode.hpp"

#include <algorithm>
#include <cstring>

#include "lmq/kernels/trellis.hpp"
#include "trellis_steps.hpp"

namespace lmq {

SpreadSymbol symbol_range(const SpreadTable& table, std::uint32_t magnitude, bool negative) noexcept {
  std::uint32_t start = 0;
  const std::uint32_t last = std::min<std::uint32_t>(magnitude, table.magnitudes);
  for (std::uint32_t m = 0; m < last; ++m) start += (table.zero && m == 0 ? 1U : 2U) * table.freq[m];
  if (magnitude >= table.magnitudes) return {start, table.escape};
  const std::uint32_t freq = table.freq[magnitude];
  const bool second = table.zero ? magnitude > 0 && negative : !negative;
  return {second ? start + freq : start, freq};
}

namespace {
void fill_slots(const SpreadTable& table, std::uint32_t* slots) {
  const auto put = [&](std::int32_t code, SpreadSymbol range) {
    for (std::uint32_t k = 0; k < range.freq; ++k)
      slots[range.start + k] = static_cast<std::uint32_t>(code) << 24 | range.freq << 12 | k;
  };
  for (std::uint32_t m = 0; m < table.magnitudes; ++m) {
    const auto code = static_cast<std::int32_t>(m);
    put(code, symbol_range(table, m, false));
    if (!table.zero || m > 0) put(table.zero ? -code : -code - 1, symbol_range(table, m, true));
  }
  put(kEscapeCode, symbol_range(table, table.magnitudes, false));
}

/// The next word below the state, where it needs one; false when there is none.
bool refill(TrellisCursor& cursor, std::size_t lane) noexcept {
  std::uint32_t& x = cursor.state[lane];
  if (x >= kTrellisLow) return true;
  if (cursor.word == cursor.end) return false;
  std::uint16_t word;
  std::memcpy(&word, cursor.word, sizeof word);
  cursor.word += sizeof word;
  x = x << 16 | word;
  return true;
}
}  // namespace

void make_trellis_tables(const SpreadFamily& family, unsigned states, int first, int last, TrellisTables& tables) {
  tables.states = states;
  tables.first = first;
  tables.last = last;
  tables.slots.resize(static_cast<std::size_t>(last - first + 1) * 2 << kSpreadBits);
  for (int c = first; c <= last; ++c)
    for (unsigned quantizer = 0; quantizer < 2; ++quantizer) {
      const auto spread = static_cast<unsigned>(c);
      const SpreadChoice choice = spread_choice(states, states == 1 ? 0 : quantizer, spread);
      const SpreadTable& table = family[choice.table];
      tables.magnitudes[spread][quantizer] = table.magnitudes;
      tables.zero[spread][quantizer] = table.zero;
      tables.raw[spread] = static_cast<std::uint8_t>(choice.raw);
      fill_slots(table, tables.slots.data() + ((static_cast<std::size_t>(c - first) * 2 + quantizer) << kSpreadBits));
    }
}

namespace {
/// `bits` low bits of a lane's state, 0..16; false where the words run out.
bool take_raw(TrellisCursor& cursor, std::size_t lane, unsigned bits, std::uint32_t& value) noexcept {
  std::uint32_t& x = cursor.state[lane];
  value = x & ((1U << bits) - 1);
  x >>= bits;
  return refill(cursor, lane);
}

/// The code after an escape; false where the words run out or it is too long.
bool take_escape(TrellisCursor& cursor, std::size_t lane, std::uint32_t magnitudes, bool zero,
                 std::int32_t& code) noexcept {
  std::uint32_t width, low, high = 0, negative;
  if (!take_raw(cursor, lane, kEscapeWidthBits, width) || width > kMaxEscapeWidth) return false;
  if (!take_raw(cursor, lane, std::min(width, kEscapePart), low)) return false;
  if (width > kEscapePart && !take_raw(cursor, lane, width - kEscapePart, high)) return false;
  if (!take_raw(cursor, lane, 1, negative)) return false;
  const auto magnitude = static_cast<std::int32_t>(magnitudes + (1U << width | high << kEscapePart | low) - 1);
  code = negative == 0 ? magnitude : zero ? -magnitude : -magnitude - 1;
  return true;
}
}  // namespace

unsigned spread_at(const TrellisDiagonal& diagonal, std::size_t row, std::size_t col, std::size_t lane) noexcept {
  const int spread = diagonal.row_spread[row * diagonal.stride + lane] + diagonal.col_spread[col];
  return static_cast<unsigned>(std::clamp(spread, 0, static_cast<int>(kSpreadClasses) - 1));
}

bool take_escapes(const TrellisTables& tables, TrellisCursor& cursor, const TrellisDiagonal& diagonal, std::size_t step,
                  std::span<std::int32_t> codes) noexcept {
  for (std::size_t lane = 0; lane < codes.size(); ++lane) {
    if (codes[lane] != kEscapeCode) continue;
    const unsigned spread = spread_at(diagonal, diagonal.first_row - step, diagonal.first_col + step, lane);
    const unsigned quantizer = cursor.path[lane] & 1;
    if (!take_escape(cursor, lane, tables.magnitudes[spread][quantizer], tables.zero[spread][quantizer], codes[lane]))
      return false;
    const std::int64_t whole = std::int64_t{codes[lane]} * (std::int64_t{1} << tables.raw[spread]);
    if (whole > 2 * kMaxTrellisCode || whole < -2 * kMaxTrellisCode) return false;
  }
  return true;
}

bool trellis_step(const TrellisTables& tables, TrellisCursor& cursor, const TrellisDiagonal& diagonal,
                  std::size_t step) noexcept {
  const std::size_t row = diagonal.first_row - step, col = diagonal.first_col + step;
  const std::size_t lanes = row < diagonal.last_lane_rows ? cursor.lanes : cursor.lanes - 1;
  std::array<std::int32_t, kMaxTrellisLanes> code;
  for (std::size_t lane = 0; lane < lanes; ++lane) {
    const std::size_t spread = spread_at(diagonal, row, col, lane) - static_cast<std::size_t>(tables.first);
    std::uint32_t& x = cursor.state[lane];
    const std::uint32_t entry = tables.slots[((2 * spread + (cursor.path[lane] & 1)) << kSpreadBits) + (x & 0xFFF)];
    code[lane] = static_cast<std::int32_t>(entry) >> 24;
    x = (entry >> 12 & 0xFFF) * (x >> kSpreadBits) + (entry & 0xFFF);
    if (!refill(cursor, lane)) return false;
  }
  std::array<std::uint32_t, kMaxTrellisLanes> raw;
  for (std::size_t lane = 0; lane < lanes; ++lane)
    if (!take_raw(cursor, lane, tables.raw[spread_at(diagonal, row, col, lane)], raw[lane])) return false;
  if (!take_escapes(tables, cursor, diagonal, step, std::span(code).first(lanes))) return false;
  const TrellisTaps taps = trellis_taps(tables.states);
  const std::size_t at = (row * diagonal.tile_cols + col % diagonal.tile_cols) * diagonal.stride;
  for (std::size_t lane = 0; lane < lanes; ++lane) {
    const unsigned spread = spread_at(diagonal, row, col, lane);
    const std::int32_t k = code[lane] * (1 << tables.raw[spread]) + static_cast<std::int32_t>(raw[lane]);
    const std::int32_t value = trellis_value(tables.states, cursor.path[lane] & 1, spread, k);
    if (tables.states > 1) cursor.path[lane] = trellis_next(taps, cursor.path[lane], k);
    diagonal.values[at + lane] =
        static_cast<float>(value) * diagonal.row_factor[row * diagonal.stride + lane] * diagonal.col_factor[col];
    if (diagonal.codes != nullptr) diagonal.codes[at + lane] = k;
  }
  return true;
}

bool trellis_decode_reference(const TrellisTables& tables, TrellisCursor& cursor,
                              const TrellisDiagonal& diagonal) noexcept {
  for (std::size_t step = 0; step < diagonal.rows; ++step)
    if (!trellis_step(tables, cursor, diagonal, step)) return false;
  return true;
}

}  // namespace lmq
