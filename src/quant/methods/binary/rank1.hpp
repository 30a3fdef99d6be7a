#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "lmq/base/tensor.hpp"
#include "lmq/quant/importance.hpp"
#include "lmq/quant/quantizer.hpp"
#include "lmq/quant/unit_stats.hpp"

namespace lmq {

/// Codes of a [rows][cols] matrix as row factor * column factor * u, u in {-1, 1} (2 levels) or {-1, 0, 1} (3 levels).
struct Rank1 {
  std::vector<double> rows, cols;  ///< >= 0; the columns' mean square is 1
  double loss = 0;                 ///< sum importance * error^2
};
/// Alternates codes (signs, or the nearest of three), row factors and column factors by weighted least squares, each
/// the optimum for the others, until a round gains less than 1e-4 of the loss or 30 times; the loss never rises. Begins
/// with columns of 1 and `start` as row factors, so that it never loses to one scale per row. x [rows * cols]
/// row-major; importance as long, or empty. Parallel; the same bits for any number of threads. About 5 ns a weight and
/// round on one core. Source: Pouransari, Tu & Tuzel 2020, section on scaling by rank 1; the alternation is weighted.
[[nodiscard]] Rank1 fit_rank1(std::span<const float> x, std::span<const float> importance, std::uint64_t cols,
                              std::size_t levels, std::span<const double> start);

/// Quantizes a window of whole rows with one factor per row and per column. In: as Quantizer::quantize_rows;
/// `quantizer`: binary-1 or ternary, whose numbers for each row are the start. Out: kind rank1, group 0.
[[nodiscard]] UnitStats quantize_rank1(const TensorView& view, const Quantizer& quantizer, const Importance& importance,
                                       QuantizedUnit& unit);

/// Bytes it holds beside view, unit and error sums.
[[nodiscard]] std::uint64_t rank1_scratch_bytes(std::uint64_t count, std::uint64_t cols) noexcept;

}  // namespace lmq
