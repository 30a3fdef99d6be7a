#pragma once
#include <cstdint>
#include <span>

#include "lmq/base/quantized_unit.hpp"
#include "lmq/base/tensor.hpp"
#include "lmq/quant/importance.hpp"
#include "lmq/quant/quantizer.hpp"
#include "lmq/quant/unit.hpp"

namespace lmq {

/// Quantizes a window of whole rows with a codebook for each run of unit.group weights of a row (the last of a row may
/// be shorter). In: unit.count > 0, cols, group, level_type, codes of the right size. Out: kind, levels, book, codes.
/// draws: of stochastic rounding. The unit is a grid when its codebooks are grids (or single levels), else a table.
[[nodiscard]] UnitStats quantize_rows(const RowWindow& window, std::size_t levels, const Quantizer& quantizer,
                                      const Draws& draws, QuantizedUnit& unit);

/// A window by rows as it is planned.
struct RowsWork {
  std::uint64_t group = 0, count = 0;  ///< weights of a codebook, of the window
  std::size_t levels = 0, threads = 1;
  bool narrow = false;    ///< of at most 16 bits: equal values are found before the solver sees them
  bool weighted = false;  ///< with importance
};
/// Bytes it holds beside view, unit and error sums, measured.
[[nodiscard]] std::uint64_t rows_scratch_bytes(const RowsWork& work, const MethodCost& cost) noexcept;

}  // namespace lmq
