#include "lmq/kernels/product.hpp"

#include <algorithm>
#include <cmath>

#include "lmq/kernels/isa.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "product.cpp"
#include "targets.hpp"
// foreach_target must come before highway.h
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace lmq::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Sets without a fused multiply-add would round twice.
#if HWY_TARGET <= HWY_AVX2 || HWY_TARGET == HWY_NEON
constexpr std::size_t kTileRows = 6;       // two vectors each: 12 sums in registers
constexpr std::size_t kDepthAtOnce = 256;  // of b copied together for many rows
constexpr std::ptrdiff_t kNear = 32;       // rows of b so near each other need no copy

/// Sums of kRows rows and two vectors of columns.
template <std::size_t kRows, class Number>
HWY_INLINE void tile(std::size_t depth, const Strided<const Number>& a, std::size_t row, const Number* b,
                     std::ptrdiff_t b_step, Number* sums, std::ptrdiff_t sums_step) {
  const hn::ScalableTag<Number> d;
  const std::size_t width = hn::Lanes(d);
  using V = hn::Vec<decltype(d)>;
  V low[kRows], high[kRows];
  const Number* left[kRows];
  for (std::size_t i = 0; i < kRows; ++i) {
    const Number* from = sums + static_cast<std::ptrdiff_t>(i) * sums_step;
    low[i] = hn::LoadU(d, from);
    high[i] = hn::LoadU(d, from + width);
    left[i] = &a.at(row + i, 0);
  }
  for (std::size_t k = 0; k < depth; ++k, b += b_step) {
    const V b_low = hn::LoadU(d, b), b_high = hn::LoadU(d, b + width);
    HWY_UNROLL(8)
    for (std::size_t i = 0; i < kRows; ++i) {
      const V factor = hn::Set(d, left[i][static_cast<std::ptrdiff_t>(k) * a.col_step]);
      low[i] = hn::MulAdd(factor, b_low, low[i]);
      high[i] = hn::MulAdd(factor, b_high, high[i]);
    }
  }
  for (std::size_t i = 0; i < kRows; ++i) {
    Number* to = sums + static_cast<std::ptrdiff_t>(i) * sums_step;
    hn::StoreU(low[i], d, to);
    hn::StoreU(high[i], d, to + width);
  }
}

template <class Number>
void rows_of_tile(std::size_t rows, std::size_t depth, const Strided<const Number>& a, std::size_t row, const Number* b,
                  std::ptrdiff_t b_step, Number* sums, std::ptrdiff_t sums_step) {
  switch (rows) {
    case 1:
      return tile<1>(depth, a, row, b, b_step, sums, sums_step);
    case 2:
      return tile<2>(depth, a, row, b, b_step, sums, sums_step);
    case 3:
      return tile<3>(depth, a, row, b, b_step, sums, sums_step);
    case 4:
      return tile<4>(depth, a, row, b, b_step, sums, sums_step);
    case 5:
      return tile<5>(depth, a, row, b, b_step, sums, sums_step);
    default:
      return tile<6>(depth, a, row, b, b_step, sums, sums_step);
  }
}

/// Two vectors, of which the first `cols` numbers are there, the rest 0.
template <class Number>
HWY_INLINE void copy_row(const Number* from, Number* to, std::size_t cols) {
  const hn::ScalableTag<Number> d;
  const std::size_t width = hn::Lanes(d);
  if (cols == 2 * width) {
    hn::StoreU(hn::LoadU(d, from), d, to);
    hn::StoreU(hn::LoadU(d, from + width), d, to + width);
    return;
  }
  std::copy_n(from, cols, to);
  std::fill(to + cols, to + 2 * width, Number{0});
}

/// One strip of at most two vectors of columns. Copies of b lie together, filled up with zeros.
template <class Number>
void strip(const ProductShape& shape, const Strided<const Number>& a, const Strided<const Number>& b,
           const Strided<Number>& sums, std::size_t col, std::size_t cols) {
  const std::size_t full = 2 * hn::Lanes(hn::ScalableTag<Number>());
  constexpr std::size_t kMaxCols = 2 * hn::MaxLanes(hn::ScalableTag<Number>());
  HWY_ALIGN Number copy[kDepthAtOnce * kMaxCols];
  HWY_ALIGN Number edge[kTileRows * kMaxCols];
  const bool scattered = b.row_step > kNear || b.row_step < -kNear;
  const bool copied = cols < full || (scattered && shape.rows > 4 * kTileRows);
  for (std::size_t begin = 0; begin < shape.depth; begin += kDepthAtOnce) {
    const std::size_t depth = std::min(kDepthAtOnce, shape.depth - begin);
    const Number* right = &b.at(begin, col);
    std::ptrdiff_t right_step = b.row_step;
    if (copied) {
      for (std::size_t k = 0; k < depth; ++k) copy_row(&b.at(begin + k, col), copy + k * full, cols);
      right = copy, right_step = static_cast<std::ptrdiff_t>(full);
    }
    const Strided<const Number> left{&a.at(0, begin), a.row_step, a.col_step};
    for (std::size_t row = 0; row < shape.rows; row += kTileRows) {
      const std::size_t rows = std::min(kTileRows, shape.rows - row);
      if (cols == full) {
        rows_of_tile(rows, depth, left, row, right, right_step, &sums.at(row, col), sums.row_step);
        continue;
      }
      for (std::size_t i = 0; i < rows; ++i) {
        std::copy_n(&sums.at(row + i, col), cols, edge + i * full);
        std::fill(edge + i * full + cols, edge + (i + 1) * full, Number{0});
      }
      rows_of_tile(rows, depth, left, row, right, right_step, edge, static_cast<std::ptrdiff_t>(full));
      for (std::size_t i = 0; i < rows; ++i) std::copy_n(edge + i * full, cols, &sums.at(row + i, col));
    }
  }
}

template <class Number>
bool product(const ProductShape& shape, const Strided<const Number>& a, const Strided<const Number>& b,
             const Strided<Number>& sums) {
  const std::size_t full = 2 * hn::Lanes(hn::ScalableTag<Number>());
  for (std::size_t col = 0; col < shape.cols; col += full)
    strip(shape, a, b, sums, col, std::min(full, shape.cols - col));
  return true;
}

std::size_t scaled(float factor, const float* values, float* sums, std::size_t count) {
  const hn::ScalableTag<float> d;
  const auto by = hn::Set(d, factor);
  std::size_t i = 0;
  for (; i + hn::Lanes(d) <= count; i += hn::Lanes(d))
    hn::StoreU(hn::MulAdd(by, hn::LoadU(d, values + i), hn::LoadU(d, sums + i)), d, sums + i);
  return i;
}

/// Sums of whole vectors, four at a time; returns how many.
std::size_t products(std::size_t depth, std::size_t count, const Strided<const float>& a, const Strided<const float>& b,
                     float* sums) {
  const hn::ScalableTag<float> d;
  const std::size_t width = hn::Lanes(d);
  using V = hn::Vec<decltype(d)>;
  std::size_t i = 0;
  for (; i + 4 * width <= count; i += 4 * width) {
    V s0 = hn::LoadU(d, sums + i), s1 = hn::LoadU(d, sums + i + width), s2 = hn::LoadU(d, sums + i + 2 * width),
      s3 = hn::LoadU(d, sums + i + 3 * width);
    const float *left = a.data + i, *right = b.data + i;
    for (std::size_t k = 0; k < depth; ++k, left += a.row_step, right += b.row_step) {
      s0 = hn::MulAdd(hn::LoadU(d, left), hn::LoadU(d, right), s0);
      s1 = hn::MulAdd(hn::LoadU(d, left + width), hn::LoadU(d, right + width), s1);
      s2 = hn::MulAdd(hn::LoadU(d, left + 2 * width), hn::LoadU(d, right + 2 * width), s2);
      s3 = hn::MulAdd(hn::LoadU(d, left + 3 * width), hn::LoadU(d, right + 3 * width), s3);
    }
    hn::StoreU(s0, d, sums + i), hn::StoreU(s1, d, sums + i + width);
    hn::StoreU(s2, d, sums + i + 2 * width), hn::StoreU(s3, d, sums + i + 3 * width);
  }
  for (; i + width <= count; i += width) {
    V s = hn::LoadU(d, sums + i);
    const float *left = a.data + i, *right = b.data + i;
    for (std::size_t k = 0; k < depth; ++k, left += a.row_step, right += b.row_step)
      s = hn::MulAdd(hn::LoadU(d, left), hn::LoadU(d, right), s);
    hn::StoreU(s, d, sums + i);
  }
  return i;
}
#else
std::size_t scaled(float, const float*, float*, std::size_t) { return 0; }
std::size_t products(std::size_t, std::size_t, const Strided<const float>&, const Strided<const float>&, float*) {
  return 0;
}

template <class Number>
bool product(const ProductShape&, const Strided<const Number>&, const Strided<const Number>&, const Strided<Number>&) {
  return false;
}
#endif

bool product_float(const ProductShape& shape, const Strided<const float>& a, const Strided<const float>& b,
                   const Strided<float>& sums) {
  return product(shape, a, b, sums);
}
bool product_double(const ProductShape& shape, const Strided<const double>& a, const Strided<const double>& b,
                    const Strided<double>& sums) {
  return product(shape, a, b, sums);
}

}  // namespace lmq::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lmq {
namespace {
HWY_EXPORT(product_float);
HWY_EXPORT(product_double);
HWY_EXPORT(scaled);
HWY_EXPORT(products);

template <class Number>
void plain(const ProductShape& shape, const Strided<const Number>& a, const Strided<const Number>& b,
           const Strided<Number>& sums) noexcept {
  for (std::size_t i = 0; i < shape.rows; ++i)
    for (std::size_t j = 0; j < shape.cols; ++j)
      for (std::size_t k = 0; k < shape.depth; ++k) sums.at(i, j) = std::fma(a.at(i, k), b.at(k, j), sums.at(i, j));
}
}  // namespace

void add_product_reference(const ProductShape& shape, const Strided<const float>& a, const Strided<const float>& b,
                           const Strided<float>& sums) noexcept {
  plain(shape, a, b, sums);
}
void add_product_reference(const ProductShape& shape, const Strided<const double>& a, const Strided<const double>& b,
                           const Strided<double>& sums) noexcept {
  plain(shape, a, b, sums);
}

void add_product(const ProductShape& shape, const Strided<const float>& a, const Strided<const float>& b,
                 const Strided<float>& sums) noexcept {
  if (shape.rows == 0 || shape.depth == 0 || shape.cols == 0) return;
  if (baseline_forced() || !HWY_DYNAMIC_DISPATCH(product_float)(shape, a, b, sums)) plain(shape, a, b, sums);
}
void add_product(const ProductShape& shape, const Strided<const double>& a, const Strided<const double>& b,
                 const Strided<double>& sums) noexcept {
  if (shape.rows == 0 || shape.depth == 0 || shape.cols == 0) return;
  if (baseline_forced() || !HWY_DYNAMIC_DISPATCH(product_double)(shape, a, b, sums)) plain(shape, a, b, sums);
}

void add_products(std::size_t depth, std::size_t count, const Strided<const float>& a, const Strided<const float>& b,
                  float* sums) noexcept {
  std::size_t i = baseline_forced() ? 0 : HWY_DYNAMIC_DISPATCH(products)(depth, count, a, b, sums);
  for (; i < count; ++i)
    for (std::size_t k = 0; k < depth; ++k) sums[i] = std::fma(a.at(k, i), b.at(k, i), sums[i]);
}

void add_scaled(float factor, const float* values, float* sums, std::size_t count) noexcept {
  std::size_t i = baseline_forced() ? 0 : HWY_DYNAMIC_DISPATCH(scaled)(factor, values, sums, count);
  for (; i < count; ++i) sums[i] = std::fma(factor, values[i], sums[i]);
}

}  // namespace lmq
#endif
