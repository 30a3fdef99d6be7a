#pragma once
#include <cstddef>
#include <cstdint>

namespace lmq {

/// log2(x) of a normal x > 0, to about 1e-15 of max(1, |result|), and 2^x for |x| <= 1000. Plain operations in a fixed
/// order, so the same bits on every machine, which the C library does not promise.
[[nodiscard]] double plain_log2(double x) noexcept;
[[nodiscard]] double plain_exp2(double x) noexcept;

/// Running sums over points on a line, [edges]: what lies before an edge. A cell (i, j] is what lies between two edges.
struct CellColumns {
  const double* n = nullptr;  ///< weights, whole numbers, strictly ascending
  const double* a = nullptr;  ///< importance, strictly ascending
  const double* b = nullptr;  ///< importance * value, from a centre
  const double* c = nullptr;  ///< importance * value^2, from the same centre
};

/// Price of a cell: squared error about its mean (or about the centre when pinned) + lambda * dn * log2(total / dn).
struct CellPrice {
  double lambda = 0;         ///< squared error per bit
  double inverse_total = 0;  ///< 1 / total
};
[[nodiscard]] double cell_error(const CellColumns& edges, std::size_t i, std::size_t j, bool pinned) noexcept;
[[nodiscard]] double cell_bits(const CellColumns& edges, double inverse_total, std::size_t i, std::size_t j) noexcept;

struct BestStart {
  double value;  ///< infinity when the range is empty
  std::size_t edge;
};
/// Smallest f[i] + price of the cell (i, j] over first <= i < last <= j, the smallest edge among equals: one step of
/// engine E4. About 1 ns a cell with AVX-512. The twin in plain loops gives the same bits.
[[nodiscard]] BestStart best_cell_start(const CellColumns& edges, const CellPrice& price, const double* f,
                                        std::size_t first, std::size_t last, std::size_t j, bool pinned) noexcept;
[[nodiscard]] BestStart best_cell_start_reference(const CellColumns& edges, const CellPrice& price, const double* f,
                                                  std::size_t first, std::size_t last, std::size_t j,
                                                  bool pinned) noexcept;

}  // namespace lmq
