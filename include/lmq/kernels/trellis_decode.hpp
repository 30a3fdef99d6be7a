#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lmq/base/trellis_unit.hpp"
#include "lmq/kernels/spread_tables.hpp"

namespace lmq {

/// Coder states of lanes in lockstep: a step takes one weight of every lane. Each lane is a 32-bit state x >= 2^16 that
/// is refilled by 16-bit words, as in lmq/kernels/rans.hpp, with a table per class and quantizer. Order of the words
/// of a step: those after the symbols, lane by lane; those after raw low bits, lane by lane; those of escapes, lane by
/// lane.
inline constexpr std::uint32_t kTrellisLow = 1U << 16;
inline constexpr std::int32_t kEscapeCode = -128;
/// Raw bits of an escape: the width of what follows, that in its low and then its high part, a sign.
inline constexpr std::uint32_t kEscapeWidthBits = 5, kEscapePart = 12;

/// A symbol of a table: its range in [0, 2^kSpreadBits).
struct SpreadSymbol {
  std::uint32_t start = 0, freq = 0;
};
/// Ranges in the order 0, 1, -1, 2, -2, ... or 0, -1, 1, -2, 2, ..., the escape last. magnitude < table.magnitudes, or
/// the escape, whose sign does not matter.
[[nodiscard]] SpreadSymbol symbol_range(const SpreadTable& table, std::uint32_t magnitude, bool negative) noexcept;

/// Tables for decoding: all classes of a record.
struct TrellisTables {
  unsigned states = 8;
  int first = 0, last = 0;           ///< classes
  std::vector<std::uint32_t> slots;  ///< [last - first + 1][2][4096]: code << 24 | freq << 12 | place in the range
  std::array<std::array<std::uint8_t, 2>, kSpreadClasses> magnitudes{};  ///< what escapes begin from
  std::array<std::array<bool, 2>, kSpreadClasses> zero{};                ///< of the coded part
  std::array<std::uint8_t, kSpreadClasses> raw{};
};
void make_trellis_tables(const SpreadFamily& family, unsigned states, int first, int last, TrellisTables& tables);

/// A decoder between two diagonals.
struct TrellisCursor {
  alignas(64) std::array<std::uint32_t, kMaxTrellisLanes> state{};
  alignas(64) std::array<std::uint32_t, kMaxTrellisLanes> path{};  ///< states of the trellis
  std::size_t lanes = 0;
  const std::byte* word = nullptr;  ///< next word (little-endian, any alignment)
  const std::byte* end = nullptr;   ///< a whole number of words after `word`
};

/// What a diagonal's weights are made of. Arrays by row of a lane hold `stride` lanes each: at least the lanes, from
/// kFewestVectorLanes lanes on 16, 32 or 64; spreads beyond the lanes are those of some row.
inline constexpr std::size_t kFewestVectorLanes = 4;
struct TrellisDiagonal {
  std::size_t first_row = 0, rows = 0;  ///< rows first_row, first_row - 1, ... of every lane
  std::size_t first_col = 0;            ///< column of the first; then the columns ascend
  std::size_t last_lane_rows = 0;       ///< the last lane has no rows from here on
  std::size_t stride = 0, tile_cols = 0;
  const std::int8_t* row_spread = nullptr;  ///< [lane_rows][stride]
  const std::int8_t* col_spread = nullptr;  ///< [cols]
  const float* row_factor = nullptr;        ///< [lane_rows][stride]
  const float* col_factor = nullptr;        ///< [cols]
  float* values = nullptr;                  ///< [lane_rows][tile_cols][stride], column j at j % tile_cols
  std::int32_t* codes = nullptr;            ///< like values; or none
};
/// Decodes one diagonal; false where words run out or a code is none. Never reads past cursor.end.
[[nodiscard]] bool trellis_decode(const TrellisTables& tables, TrellisCursor& cursor,
                                  const TrellisDiagonal& diagonal) noexcept;
/// The same in plain loops: the meaning, and the twin for tests.
[[nodiscard]] bool trellis_decode_reference(const TrellisTables& tables, TrellisCursor& cursor,
                                            const TrellisDiagonal& diagonal) noexcept;

}  // namespace lmq
