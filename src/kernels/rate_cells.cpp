#include "lmq/kernels/rate_cells.hpp"

#include <bit>
#include <cmath>
#include <limits>

#include "lmq/kernels/isa.hpp"
#include "rate_log.hpp"
#include "targets.hpp"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "rate_cells.cpp"
// foreach_target must come before highway.h
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace lmq::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

#define LMQ_RATE_VECTORS (HWY_TARGET != HWY_SCALAR && HWY_HAVE_FLOAT64)
#if LMQ_RATE_VECTORS
using Doubles = hn::CappedTag<double, 8>;
using Vec = hn::Vec<Doubles>;

struct End {
  Vec n, a, b, c, lambda, inverse_total;
};

// The operations of cell_price (rate_log.hpp), one after another.
template <bool kPinned>
HWY_INLINE Vec price(const CellColumns& edges, const End& end, std::size_t i) {
  const Doubles d;
  const hn::RebindToUnsigned<Doubles> du;
  const Vec dn = hn::Sub(end.n, hn::LoadU(d, edges.n + i)), dc = hn::Sub(end.c, hn::LoadU(d, edges.c + i));
  const auto bits = hn::BitCast(du, hn::Mul(dn, end.inverse_total));
  const auto power = hn::ShiftRight<52>(hn::Sub(bits, hn::Set(du, kLogOffset)));
  const Vec m = hn::BitCast(d, hn::Add(hn::Sub(bits, hn::ShiftLeft<52>(power)), hn::Set(du, kLogOne)));
  const Vec whole =
      hn::Sub(hn::BitCast(d, hn::Or(power, hn::Set(du, kLogMagic))), hn::Set(d, kLogMagicValue + kLogBias));
  const Vec one = hn::Set(d, 1.0), up = hn::Add(m, one), down = hn::Sub(m, one);
  Vec error = dc, y;
  if constexpr (kPinned) {
    y = hn::Div(down, up);
  } else {
    const Vec da = hn::Sub(end.a, hn::LoadU(d, edges.a + i)), db = hn::Sub(end.b, hn::LoadU(d, edges.b + i));
    const Vec r = hn::Div(one, hn::Mul(da, up));
    y = hn::Mul(hn::Mul(down, da), r);
    error = hn::Sub(dc, hn::Mul(hn::Mul(hn::Mul(db, db), up), r));
  }
  const Vec y2 = hn::Mul(y, y);
  Vec sum = hn::Set(d, kLogSeries[kLogTerms - 1]);
  for (std::size_t k = kLogTerms - 1; k-- > 0;) sum = hn::Add(hn::Mul(sum, y2), hn::Set(d, kLogSeries[k]));
  const Vec log = hn::Add(whole, hn::Mul(y, sum));
  return hn::Sub(hn::Max(error, hn::Zero(d)), hn::Mul(hn::Mul(end.lambda, dn), log));
}

template <bool kPinned>
HWY_INLINE void scan(const CellColumns& edges, const CellPrice& p, const double* f, std::size_t first,
                     std::size_t blocks, std::size_t j, double* values, double* indices) {
  const Doubles d;
  constexpr std::size_t kWidth = hn::MaxLanes(d);
  const End end{hn::Set(d, edges.n[j]), hn::Set(d, edges.a[j]), hn::Set(d, edges.b[j]),
                hn::Set(d, edges.c[j]), hn::Set(d, p.lambda),   hn::Set(d, p.inverse_total)};
  Vec best = hn::Set(d, std::numeric_limits<double>::infinity()), best_at = hn::Zero(d);
  Vec at = hn::Iota(d, static_cast<double>(first));
  const Vec step = hn::Set(d, static_cast<double>(kWidth));
  for (std::size_t k = 0; k < blocks; ++k) {
    const std::size_t i = first + k * kWidth;
    const Vec value = hn::Add(hn::LoadU(d, f + i), price<kPinned>(edges, end, i));
    const auto better = hn::Lt(value, best);
    best = hn::IfThenElse(better, value, best);
    best_at = hn::IfThenElse(better, at, best_at);
    at = hn::Add(at, step);
  }
  hn::StoreU(best, d, values);
  hn::StoreU(best_at, d, indices);
}
#endif  // LMQ_RATE_VECTORS
}  // namespace

BestStart best_start_vector(const CellColumns& edges, const CellPrice& p, const double* f, std::size_t first,
                            std::size_t last, std::size_t j, bool pinned) {
#if LMQ_RATE_VECTORS
  constexpr std::size_t kWidth = hn::MaxLanes(Doubles{});
  const std::size_t blocks = last > first ? (last - first) / kWidth : 0;
  BestStart best{std::numeric_limits<double>::infinity(), first};
  if (blocks > 0) {
    double values[kWidth], indices[kWidth];
    if (pinned)
      scan<true>(edges, p, f, first, blocks, j, values, indices);
    else
      scan<false>(edges, p, f, first, blocks, j, values, indices);
    for (std::size_t lane = 0; lane < kWidth; ++lane) {
      const auto edge = static_cast<std::size_t>(indices[lane]);
      if (values[lane] < best.value || (values[lane] == best.value && edge < best.edge)) best = {values[lane], edge};
    }
  }
  const BestStart rest = best_cell_start_reference(edges, p, f, first + blocks * kWidth, last, j, pinned);
  return rest.value < best.value ? rest : best;
#else
  return best_cell_start_reference(edges, p, f, first, last, j, pinned);
#endif
}
#undef LMQ_RATE_VECTORS
}  // namespace lmq::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lmq {
namespace {
HWY_EXPORT(best_start_vector);
}  // namespace

double plain_log2(double x) noexcept { return log2_of(x); }

double plain_exp2(double x) noexcept {
  const double whole = std::floor(x + 0.5), t = (x - whole) * 0.69314718055994530942;  // |t| <= ln 2 / 2
  double sum = 1;
  for (int k = 16; k > 0; --k) sum = 1 + sum * t / k;
  return std::ldexp(sum, static_cast<int>(whole));
}

double cell_error(const CellColumns& edges, std::size_t i, std::size_t j, bool pinned) noexcept {
  const double dc = edges.c[j] - edges.c[i], da = edges.a[j] - edges.a[i], db = edges.b[j] - edges.b[i];
  const double error = pinned ? dc : dc - db * db / da;
  return error > 0 ? error : 0.0;
}

double cell_bits(const CellColumns& edges, double inverse_total, std::size_t i, std::size_t j) noexcept {
  const double dn = edges.n[j] - edges.n[i];
  return 0 - dn * log2_of(dn * inverse_total);
}

BestStart best_cell_start_reference(const CellColumns& edges, const CellPrice& price, const double* f,
                                    std::size_t first, std::size_t last, std::size_t j, bool pinned) noexcept {
  BestStart best{std::numeric_limits<double>::infinity(), first};
  for (std::size_t i = first; i < last; ++i) {
    const double value = f[i] + cell_price(edges, price, i, j, pinned);
    if (value < best.value) best = {value, i};
  }
  return best;
}

BestStart best_cell_start(const CellColumns& edges, const CellPrice& price, const double* f, std::size_t first,
                          std::size_t last, std::size_t j, bool pinned) noexcept {
  if (baseline_forced()) return best_cell_start_reference(edges, price, f, first, last, j, pinned);
  return HWY_DYNAMIC_DISPATCH(best_start_vector)(edges, price, f, first, last, j, pinned);
}

}  // namespace lmq
#endif  // HWY_ONCE
