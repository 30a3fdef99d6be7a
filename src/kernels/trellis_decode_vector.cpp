#include "lmq/kernels/isa.hpp"
#include "lmq/kernels/trellis.hpp"
#include "lmq/kernels/trellis_decode.hpp"
#include "trellis_steps.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "trellis_decode_vector.cpp"
#include "targets.hpp"
// foreach_target must come before highway.h
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "lane_words-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace lmq::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET <= HWY_AVX2
using Ints = hn::RebindToSigned<Lanes>;
using Floats = hn::Rebind<float, Lanes>;
using SignedBytes = hn::Rebind<std::int8_t, Lanes>;
using I = hn::Vec<Ints>;

/// Lanes below their range take the next words, in ascending order.
HWY_INLINE V refilled(V x, M active, const std::byte*& word) {
  const Lanes d;
  const M low = hn::And(active, hn::Lt(x, hn::Set(d, kTrellisLow)));
  const V more = hn::PromoteTo(d, hn::LoadU(Words(), reinterpret_cast<const std::uint16_t*>(word)));
  word += 2 * count(low);
  return hn::IfThenElse(low, hn::ShiftLeft<16>(x) | expand(more, low), x);
}

/// Raw low bits of the classes above the top one.
HWY_INLINE V raw_bits(V spread, unsigned top) {
  const Lanes d;
  const V above = hn::Sub(hn::Max(spread, hn::Set(d, top)), hn::Set(d, top));
  return hn::ShiftRight<7>(hn::Mul(hn::Add(above, hn::Set(d, 2)), hn::Set(d, 43)));  // a third, rounded up
}

/// Codes of all vectors before escapes, in memory, and back.
template <std::size_t kVectors>
HWY_INLINE bool escapes(const TrellisTables& tables, TrellisCursor& cursor, const TrellisDiagonal& diagonal,
                        std::size_t step, std::size_t lanes, V* x, const V* path, I* code) {
  alignas(64) std::int32_t codes[kVectors * kWidth];
  for (std::size_t v = 0; v < kVectors; ++v) {
    hn::Store(x[v], Lanes(), cursor.state.data() + v * kWidth);
    hn::Store(path[v], Lanes(), cursor.path.data() + v * kWidth);
    hn::Store(code[v], Ints(), codes + v * kWidth);
  }
  if (!take_escapes(tables, cursor, diagonal, step, std::span(codes, lanes))) return false;
  for (std::size_t v = 0; v < kVectors; ++v) {
    x[v] = hn::Load(Lanes(), cursor.state.data() + v * kWidth);
    code[v] = hn::Load(Ints(), codes + v * kWidth);
  }
  return true;
}

/// Steps from `step` on while more than a step's words are left; returns the first step not done, diagonal.rows + 1
/// where a code is none.
// More than 40 lines: one loop whose vectors stay in registers.
template <std::size_t kVectors>
std::size_t decode_steps(const TrellisTables& tables, TrellisCursor& cursor, const TrellisDiagonal& diagonal) {
  const Lanes d;
  const Ints di;
  const Floats df;
  constexpr std::ptrdiff_t kReach = 2 * (6 * kVectors * kWidth + kWidth);  // bytes a step may read
  const TrellisTaps taps = trellis_taps(tables.states);
  const bool one_state = tables.states == 1;
  const unsigned top = one_state ? kScalarTables - 1 : kTrellisTables / 2 - 1;
  const bool any_raw = tables.last > static_cast<int>(top);
  const I first = hn::Set(di, tables.first);
  V x[kVectors], path[kVectors];
  for (std::size_t v = 0; v < kVectors; ++v) {
    x[v] = hn::Load(d, cursor.state.data() + v * kWidth);
    path[v] = hn::Load(d, cursor.path.data() + v * kWidth);
  }
  std::size_t step = 0;
  for (; step < diagonal.rows && cursor.end - cursor.word >= kReach; ++step) {
    const std::size_t row = diagonal.first_row - step, col = diagonal.first_col + step;
    const std::size_t lanes = row < diagonal.last_lane_rows ? cursor.lanes : cursor.lanes - 1;
    I spread[kVectors], code[kVectors];
    M active[kVectors];
    M any_escape = hn::FirstN(d, 0);
    const std::byte* word = cursor.word;
    HWY_UNROLL(8)
    for (std::size_t v = 0; v < kVectors; ++v) {
      const std::size_t at = row * diagonal.stride + v * kWidth;
      active[v] = hn::FirstN(d, lanes > v * kWidth ? lanes - v * kWidth : 0);
      const I sum = hn::Add(hn::PromoteTo(di, hn::LoadU(SignedBytes(), diagonal.row_spread + at)),
                            hn::Set(di, diagonal.col_spread[col]));
      spread[v] = hn::Clamp(sum, hn::Zero(di), hn::Set(di, static_cast<std::int32_t>(kSpreadClasses) - 1));
      const V table = hn::Add(hn::BitCast(d, hn::ShiftLeft<1>(hn::Sub(spread[v], first))), path[v] & hn::Set(d, 1));
      const V slot = hn::ShiftLeft<12>(table) | (x[v] & hn::Set(d, 0xFFF));
      const V entry = gather(tables.slots.data(), slot);
      code[v] = hn::ShiftRight<24>(hn::BitCast(di, entry));
      const V freq = hn::ShiftRight<12>(entry) & hn::Set(d, 0xFFF);
      const V next = hn::Add(hn::Mul(freq, hn::ShiftRight<12>(x[v])), entry & hn::Set(d, 0xFFF));
      x[v] = hn::IfThenElse(active[v], refilled(next, active[v], word), x[v]);
      any_escape = hn::Or(any_escape, hn::And(active[v], hn::RebindMask(d, hn::Eq(code[v], hn::Set(di, kEscapeCode)))));
    }
    V raw[kVectors], low[kVectors];
    if (any_raw) {
      for (std::size_t v = 0; v < kVectors; ++v) {
        raw[v] = raw_bits(hn::BitCast(d, spread[v]), top);
        low[v] = x[v] & hn::Sub(hn::Shl(hn::Set(d, 1), raw[v]), hn::Set(d, 1));
        x[v] = hn::IfThenElse(active[v], refilled(hn::Shr(x[v], raw[v]), active[v], word), x[v]);
      }
    }
    cursor.word = word;
    if (!hn::AllFalse(d, any_escape) && !escapes<kVectors>(tables, cursor, diagonal, step, lanes, x, path, code))
      return diagonal.rows + 1;
    HWY_UNROLL(8)
    for (std::size_t v = 0; v < kVectors; ++v) {
      I k = code[v];
      if (any_raw) k = hn::Add(hn::Shl(k, hn::BitCast(di, raw[v])), hn::BitCast(di, low[v]));
      I value = k;
      if (!one_state) {
        const I one = hn::Set(di, 1), q = hn::And(hn::BitCast(di, path[v]), one);
        // of quantizer 1: + 1, with zero - sgn k
        const I sign = hn::Or(hn::ShiftRight<31>(k), hn::IfThenElseZero(hn::Gt(k, hn::Zero(di)), one));
        const I zero_or_odd = hn::IfThenElse(
            hn::Lt(spread[v], hn::Set(di, static_cast<std::int32_t>(kLastZeroClass) + 1)), hn::Neg(sign), one);
        value = hn::Add(hn::Add(k, k), hn::IfThenElseZero(hn::Eq(q, one), zero_or_odd));
        const V by_state = hn::IfThenElseZero(hn::RebindMask(d, hn::Eq(q, one)), hn::Set(d, taps.state));
        const V by_code = hn::IfThenElseZero(hn::RebindMask(d, hn::Eq(hn::And(k, one), one)), hn::Set(d, taps.code));
        const V next = hn::Xor(hn::Xor(hn::ShiftRight<1>(path[v]), by_state), by_code);
        path[v] = hn::IfThenElse(active[v], next, path[v]);
      }
      const std::size_t at = row * diagonal.stride + v * kWidth;
      const auto factor = hn::LoadU(df, diagonal.row_factor + at);
      const auto weight = hn::Mul(hn::Mul(hn::ConvertTo(df, value), factor), hn::Set(df, diagonal.col_factor[col]));
      hn::StoreU(
          weight, df,
          diagonal.values + (row * diagonal.tile_cols + col % diagonal.tile_cols) * diagonal.stride + v * kWidth);
    }
  }
  for (std::size_t v = 0; v < kVectors; ++v) {
    hn::Store(x[v], d, cursor.state.data() + v * kWidth);
    hn::Store(path[v], d, cursor.path.data() + v * kWidth);
  }
  return step;
}

std::size_t decode_some(const TrellisTables& tables, TrellisCursor& cursor, const TrellisDiagonal& diagonal) {
  switch ((cursor.lanes + kWidth - 1) / kWidth) {
    case 1:
      return decode_steps<1>(tables, cursor, diagonal);
    case 2:
      return decode_steps<2>(tables, cursor, diagonal);
    case 3:
    case 4:
      return decode_steps<4>(tables, cursor, diagonal);
    default:
      return 64 / kWidth > 4 ? decode_steps<64 / kWidth>(tables, cursor, diagonal) : 0;
  }
}
#else  // vectors too short to pay
std::size_t decode_some(const TrellisTables&, TrellisCursor&, const TrellisDiagonal&) { return 0; }
#endif

}  // namespace lmq::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lmq {
namespace {
HWY_EXPORT(decode_some);
}  // namespace

bool trellis_decode(const TrellisTables& tables, TrellisCursor& cursor, const TrellisDiagonal& diagonal) noexcept {
  if (baseline_forced() || diagonal.codes != nullptr || cursor.lanes < kFewestVectorLanes)
    return trellis_decode_reference(tables, cursor, diagonal);
  std::size_t step = HWY_DYNAMIC_DISPATCH(decode_some)(tables, cursor, diagonal);
  for (; step < diagonal.rows; ++step)
    if (!trellis_step(tables, cursor, diagonal, step)) return false;
  return step == diagonal.rows;
}

}  // namespace lmq
#endif
