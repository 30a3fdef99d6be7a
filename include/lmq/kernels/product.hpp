#pragma once
#include <cstddef>

namespace lmq {

/// A matrix whose element (i, j) lies at data[i * row_step + j * col_step]; steps may be negative.
template <class Number>
struct Strided {
  Number* data = nullptr;
  std::ptrdiff_t row_step = 0, col_step = 1;
  [[nodiscard]] Number& at(std::size_t i, std::size_t j) const noexcept {
    return data[static_cast<std::ptrdiff_t>(i) * row_step + static_cast<std::ptrdiff_t>(j) * col_step];
  }
};

struct ProductShape {
  std::size_t rows = 0, depth = 0, cols = 0;
};

/// sums[i][j] = fma(a[i][k], b[k][j], sums[i][j]) for k = 0, 1, ... depth - 1: one chain of fused multiply-adds for
/// each element, so that any cut of rows, columns or depth into several calls, and any instruction set, gives the same
/// bits. b and sums have col_step 1. Not across threads: callers cut rows or columns. Cost: 2 rows depth cols
/// operations; speeds in docs/methods/waterfill.md.
void add_product(const ProductShape& shape, const Strided<const float>& a, const Strided<const float>& b,
                 const Strided<float>& sums) noexcept;
void add_product(const ProductShape& shape, const Strided<const double>& a, const Strided<const double>& b,
                 const Strided<double>& sums) noexcept;
/// The same in plain loops: the meaning, and the twin for tests.
void add_product_reference(const ProductShape& shape, const Strided<const float>& a, const Strided<const float>& b,
                           const Strided<float>& sums) noexcept;
void add_product_reference(const ProductShape& shape, const Strided<const double>& a, const Strided<const double>& b,
                           const Strided<double>& sums) noexcept;

/// sums[i] = fma(a[k][i], b[k][i], sums[i]) for k = 0, 1, ... depth - 1 and i < count; a and b have col_step 1.
void add_products(std::size_t depth, std::size_t count, const Strided<const float>& a, const Strided<const float>& b,
                  float* sums) noexcept;

/// sums[i] = fma(factor, values[i], sums[i]) for i < count.
void add_scaled(float factor, const float* values, float* sums, std::size_t count) noexcept;

}  // namespace lmq
