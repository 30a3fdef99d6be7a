#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "lmq/base/dtype.hpp"
#include "lmq/base/math.hpp"

namespace lmq {

/// 2^(eighths / 8) rounded to float, |eighths| <= kMaxEighths.
inline constexpr int kMaxEighths = 800;
[[nodiscard]] constexpr float octave_eighths(int eighths) noexcept {
  constexpr float kRoots[8] = {0x1p0F,        0x1.172b84p0F, 0x1.306fe0p0F, 0x1.4bfdaep0F,
                               0x1.6a09e6p0F, 0x1.8ace54p0F, 0x1.ae89fap0F, 0x1.d5818ep0F};
  const int whole = eighths >= 0 ? eighths / 8 : -((7 - eighths) / 8);
  return kRoots[eighths - 8 * whole] * std::bit_cast<float>(static_cast<std::uint32_t>(whole + 127) << 23);
}

/// Most lanes of a record, each a run of rows with a path and a coder state of its own.
inline constexpr std::uint64_t kMaxTrellisLanes = 64;

/// Whole rows as codes of a trellis (docs/format.md, section 3), before coding and after decoding. The weight of row i
/// and column j is v * (step * 2^(row_step[i] / 8)) * 2^(col_step[j] / 8), each factor and product rounded to float,
/// with v the whole number of its code (lmq/kernels/trellis.hpp). Its spread class is row_spread[i] + col_spread[j],
/// kept within the classes there are.
/// Lane l holds the rows from l * lane_rows on. Its path takes the anti-diagonals i + j of its rows and all columns,
/// the last first; on each the largest row first; its state begins at 0.
struct TrellisUnit {
  std::uint16_t method = 0;   ///< registry id, for people; decoding does not look at it
  DType source = DType::f32;  ///< type of the tensor it was made from
  unsigned states = 8;        ///< 1, 4, 8, 16, 32
  std::uint64_t rows = 0, cols = 0;
  std::uint64_t lane_rows = 1;                      ///< >= 1
  float step = 1;                                   ///< finite, > 0
  std::vector<std::int16_t> row_step, col_step;     ///< [rows], [cols], eighths of octaves
  std::vector<std::int8_t> row_spread, col_spread;  ///< [rows], [cols]
  std::vector<std::int32_t> codes;                  ///< [rows * cols], row-major
  [[nodiscard]] std::uint64_t lanes() const noexcept { return ceil_div(rows, lane_rows); }
};

}  // namespace lmq
