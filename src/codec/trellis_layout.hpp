#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lmq/base/trellis_unit.hpp"
#include "lmq/codec/record.hpp"
#include "lmq/kernels/spread_tables.hpp"

namespace lmq {

inline constexpr std::uint8_t kTrellisVersion = 4;

/// Weights of a lane in the order of its path: body(first_row, rows, first_col) for each anti-diagonal, whose step s is
/// row first_row - s, column first_col + s.
template <class Body>
void for_each_diagonal(std::uint64_t lane_rows, std::uint64_t cols, const Body& body) {
  if (lane_rows == 0 || cols == 0) return;
  for (std::uint64_t d = lane_rows + cols - 1; d-- > 0;) {
    const std::uint64_t first = std::min(d, lane_rows - 1), last = d >= cols ? d - (cols - 1) : 0;
    body(static_cast<std::size_t>(first), static_cast<std::size_t>(first - last + 1),
         static_cast<std::size_t>(d - first));
  }
}

[[nodiscard]] inline unsigned spread_of(const TrellisUnit& unit, std::uint64_t row, std::uint64_t col) noexcept {
  return static_cast<unsigned>(
      std::clamp(unit.row_spread[row] + unit.col_spread[col], 0, static_cast<int>(kSpreadClasses) - 1));
}
/// Tables that some weight of the unit may use.
[[nodiscard]] std::vector<bool> tables_in_use(const TrellisUnit& unit);

/// Steps, classes and tables as bytes, and back (docs/format.md, section 3.2).
[[nodiscard]] std::vector<std::byte> write_side(const TrellisUnit& unit, const SpreadFamily& family,
                                                const std::vector<bool>& own);
/// False when these bytes are none. unit.rows and unit.cols are known.
[[nodiscard]] bool read_side(std::span<const std::byte> bytes, TrellisUnit& unit, SpreadFamily& family);

/// A trellis record taken apart, everything checked but the coded payload itself. unit.codes is empty.
struct TrellisParts {
  TrellisUnit unit;
  SpreadFamily family;
  std::vector<std::uint32_t> states;
  std::span<const std::byte> words;
};
[[nodiscard]] RecordHeader read_trellis_header(std::span<const std::byte> record, const std::string& source);
/// weights: what the record must hold, before anything is allocated.
[[nodiscard]] TrellisParts open_trellis_record(std::span<const std::byte> record, std::uint64_t weights,
                                               const std::string& source);
void decode_trellis_values(std::span<const std::byte> record, std::span<float> values, const std::string& source);

}  // namespace lmq
