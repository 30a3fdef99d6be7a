#include <cstring>

#include "lmq/kernels/isa.hpp"
#include "lmq/kernels/rans.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "rans_vector.cpp"
#include "targets.hpp"
// foreach_target must come before highway.h
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "lane_words-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace lmq::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET <= HWY_AVX2
/// Tables of at most 16 or 32 entries live in registers where lanes can be looked up across a vector of 16.
enum class Alphabet { upto16, upto32, any };

#if HWY_TARGET <= HWY_AVX3
/// A table of u32 looked up by lane; indices below 16 or 32.
template <Alphabet kAlphabet>
struct Table {
  explicit Table(const std::uint32_t* from) : low(hn::LoadU(Lanes(), from)), high(hn::LoadU(Lanes(), from + 16)) {}
  HWY_INLINE V operator[](V index) const {
    if constexpr (kAlphabet == Alphabet::upto16) return V{_mm512_permutexvar_epi32(index.raw, low.raw)};
    return V{_mm512_permutex2var_epi32(low.raw, index.raw, high.raw)};
  }
  V low, high;
};
/// v + n in the lanes of m.
HWY_INLINE V add_where(V v, M m, V n) { return V{_mm512_mask_add_epi32(v.raw, m.raw, v.raw, n.raw)}; }
#endif

// ---------------------------------------------------------------------------------------------------- decoding

/// How a slot becomes a symbol, its frequency and the slot's place in its range.
template <Alphabet kAlphabet>
struct Finder;
#if HWY_TARGET <= HWY_AVX3
template <Alphabet kAlphabet>
requires(kAlphabet != Alphabet::any) struct Finder<kAlphabet> {
  explicit Finder(const RansDecodeTable& t)
      : at8(t.start.data() + 8),
        at4(t.start.data() + 4),
        at2(t.start.data() + 2),
        at1(t.start.data() + 1),
        freq_start(t.freq_start.data()),
        middle(hn::Set(Lanes(), t.start[kAlphabet == Alphabet::upto16 ? 8 : 16])) {}
  /// The largest symbol whose start is at most the slot, by bisection.
  HWY_INLINE void operator()(V slot, V& symbol, V& freq, V& place) const {
    const Lanes d;
    if constexpr (kAlphabet == Alphabet::upto16) {
      symbol = hn::IfThenElseZero(at_least(slot, middle), hn::Set(d, 8));
    } else {
      symbol = hn::IfThenElseZero(at_least(slot, middle), hn::Set(d, 16));
      symbol = add_where(symbol, at_least(slot, at8[symbol]), hn::Set(d, 8));
    }
    symbol = add_where(symbol, at_least(slot, at4[symbol]), hn::Set(d, 4));
    symbol = add_where(symbol, at_least(slot, at2[symbol]), hn::Set(d, 2));
    symbol = add_where(symbol, at_least(slot, at1[symbol]), hn::Set(d, 1));
    const V entry = freq_start[symbol];
    freq = hn::ShiftRight<16>(entry);
    place = slot - (entry & hn::Set(d, 0xFFFF));
  }
  Table<kAlphabet> at8, at4, at2, at1, freq_start;
  V middle;
};
#endif
template <>
struct Finder<Alphabet::any> {
  explicit Finder(const RansDecodeTable& t) : table(t) {}
  HWY_INLINE void operator()(V slot, V& symbol, V& freq, V& place) const {
    const Lanes d;
    if (table.bits <= kRansQuickBits) {
      const V entry = gather(table.slot.data(), slot);
      symbol = hn::ShiftRight<24>(entry);
      freq = hn::ShiftRight<12>(entry) & hn::Set(d, 0xFFF);
      place = entry & hn::Set(d, 0xFFF);
    } else {
      const auto* bytes = reinterpret_cast<const std::uint32_t*>(table.symbol.data());
      symbol = hn::GatherOffset(d, bytes, hn::BitCast(Signed(), slot)) & hn::Set(d, 0xFF);
      const V entry = gather(table.freq_start.data(), symbol);
      freq = hn::ShiftRight<16>(entry);
      place = slot - (entry & hn::Set(d, 0xFFFF));
    }
  }
  const RansDecodeTable& table;
};

/// Steps of all lanes while words <= limit; a step reads at most lanes + kWidth words. Returns the steps done.
template <Alphabet kAlphabet, std::size_t kVectors>
std::size_t decode_steps(const RansDecodeTable& table, std::uint32_t* state, const std::byte*& words,
                         const std::byte* limit, std::uint8_t* out, std::size_t steps) {
  const Lanes d;
  const Finder<kAlphabet> find(table);
  const V mask = hn::Set(d, (1U << table.bits) - 1), low = hn::Set(d, kRansLow);
  const int bits = static_cast<int>(table.bits);
  V x[kVectors];
  for (std::size_t v = 0; v < kVectors; ++v) x[v] = hn::LoadU(d, state + v * kWidth);
  const std::byte* word = words;
  std::size_t step = 0;
  for (; step < steps && word <= limit; ++step, out += kVectors * kWidth) HWY_UNROLL(8)
  for (std::size_t v = 0; v < kVectors; ++v) {
    V symbol, freq, place;
    find(x[v] & mask, symbol, freq, place);
    hn::StoreU(hn::TruncateTo(Bytes(), symbol), Bytes(), out + v * kWidth);
    const V next = freq * hn::ShiftRightSame(x[v], bits) + place;
    const M refill = hn::Not(at_least(next, low));
    const V more = hn::PromoteTo(d, hn::LoadU(Words(), reinterpret_cast<const std::uint16_t*>(word)));
    x[v] = hn::IfThenElse(refill, hn::ShiftLeft<16>(next) | expand(more, refill), next);
    word += 2 * count(refill);
  }
  for (std::size_t v = 0; v < kVectors; ++v) hn::StoreU(x[v], d, state + v * kWidth);
  words = word;
  return step;
}

template <Alphabet kAlphabet>
std::size_t decode_steps_of(const RansDecodeTable& table, RansCursor& cursor, const std::byte*& words,
                            const std::byte* limit, std::uint8_t* out, std::size_t steps) {
  return cursor.lanes == 64
             ? decode_steps<kAlphabet, 64 / kWidth>(table, cursor.state.data(), words, limit, out, steps)
             : decode_steps<kAlphabet, 16 / kWidth>(table, cursor.state.data(), words, limit, out, steps);
}

std::size_t decode_some(const RansDecodeTable& table, RansCursor& cursor, const std::byte*& words,
                        const std::byte* limit, std::uint8_t* out, std::size_t steps) {
#if HWY_TARGET <= HWY_AVX3
  if (table.symbols <= 16) return decode_steps_of<Alphabet::upto16>(table, cursor, words, limit, out, steps);
  if (table.symbols <= kRansFewSymbols)
    return decode_steps_of<Alphabet::upto32>(table, cursor, words, limit, out, steps);
#endif
  return decode_steps_of<Alphabet::any>(table, cursor, words, limit, out, steps);
}

// ---------------------------------------------------------------------------------------------------- coding

struct Entry {
  V reciprocal, limit_bias, complement_shift;
};
template <Alphabet kAlphabet>
struct Entries;
#if HWY_TARGET <= HWY_AVX3
template <Alphabet kAlphabet>
requires(kAlphabet != Alphabet::any) struct Entries<kAlphabet> {
  explicit Entries(const RansEncodeTable& t)
      : reciprocal(t.reciprocal.data()), limit_bias(t.limit_bias.data()), complement_shift(t.complement_shift.data()) {}
  HWY_INLINE Entry operator[](V symbol) const {
    return {reciprocal[symbol], limit_bias[symbol], complement_shift[symbol]};
  }
  Table<kAlphabet> reciprocal, limit_bias, complement_shift;
};
#endif
template <>
struct Entries<Alphabet::any> {
  explicit Entries(const RansEncodeTable& t) : table(t) {}
  HWY_INLINE Entry operator[](V symbol) const {
    return {gather(table.reciprocal.data(), symbol), gather(table.limit_bias.data(), symbol),
            gather(table.complement_shift.data(), symbol)};
  }
  const RansEncodeTable& table;
};

HWY_ALIGN constexpr std::uint32_t kRotate16[32] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
                                                   0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/// The words of the lanes in m, in ascending order, just before `end`; returns where they begin. Writes kWidth words.
HWY_INLINE std::uint16_t* emit(V x, M m, std::uint16_t* end) {
  const std::size_t n = count(m);
  const V rotate = hn::LoadU(Lanes(), kRotate16 + n) & hn::Set(Lanes(), kWidth - 1);
  const V last = hn::TableLookupLanes(hn::Compress(x, m), hn::IndicesFromVec(Lanes(), rotate));
  hn::StoreU(hn::TruncateTo(Words(), last), Words(), end - kWidth);
  return end - n;
}

/// Codes `steps` whole steps from the last to the first; returns where the words begin.
template <Alphabet kAlphabet, std::size_t kVectors>
std::uint16_t* encode_steps(const RansEncodeTable& table, std::uint32_t* state, const std::uint8_t* symbols,
                            std::size_t steps, std::uint16_t* end) {
  const Lanes d;
  const hn::RepartitionToWide<Lanes> wide;
  const Entries<kAlphabet> entries(table);
  const V bias = hn::Set(d, (1U << 17) - 1), increment = hn::Set(d, table.increment);
  V x[kVectors];
  for (std::size_t v = 0; v < kVectors; ++v) x[v] = hn::LoadU(d, state + v * kWidth);
  for (std::size_t step = steps; step-- > 0;) HWY_UNROLL(8)
  for (std::size_t v = kVectors; v-- > 0;) {
    const Entry entry = entries[hn::PromoteTo(d, hn::LoadU(Bytes(), symbols + step * kVectors * kWidth + v * kWidth))];
    const M full = at_least(x[v] | bias, entry.limit_bias);
    end = emit(x[v], full, end);
    const V y = hn::IfThenElse(full, hn::ShiftRight<16>(x[v]), x[v]);
    const V z = y + increment;
    const auto even = hn::BitCast(d, hn::ShiftRight<32>(hn::MulEven(z, entry.reciprocal)));
    const auto odd =
        hn::BitCast(d, hn::MulEven(hn::BitCast(d, hn::ShiftRight<32>(hn::BitCast(wide, z))),
                                   hn::BitCast(d, hn::ShiftRight<32>(hn::BitCast(wide, entry.reciprocal)))));
    const V quotient = hn::OddEven(odd, even) >> (entry.complement_shift & hn::Set(d, 31));
    x[v] = y + (entry.limit_bias & bias) + quotient * hn::ShiftRight<16>(entry.complement_shift);
  }
  for (std::size_t v = 0; v < kVectors; ++v) hn::StoreU(x[v], d, state + v * kWidth);
  return end;
}

template <Alphabet kAlphabet>
std::uint16_t* encode_steps_of(const RansEncodeTable& table, std::uint32_t* state, std::size_t lanes,
                               const std::uint8_t* symbols, std::size_t steps, std::uint16_t* end) {
  return lanes == 64 ? encode_steps<kAlphabet, 64 / kWidth>(table, state, symbols, steps, end)
                     : encode_steps<kAlphabet, 16 / kWidth>(table, state, symbols, steps, end);
}

std::uint16_t* encode_some(const RansEncodeTable& table, std::uint32_t* state, std::size_t lanes,
                           const std::uint8_t* symbols, std::size_t steps, std::uint16_t* end) {
#if HWY_TARGET <= HWY_AVX3
  if (table.symbols <= 16) return encode_steps_of<Alphabet::upto16>(table, state, lanes, symbols, steps, end);
  if (table.symbols <= kRansFewSymbols)
    return encode_steps_of<Alphabet::upto32>(table, state, lanes, symbols, steps, end);
#endif
  return encode_steps_of<Alphabet::any>(table, state, lanes, symbols, steps, end);
}
#else  // vectors too short to pay
std::size_t decode_some(const RansDecodeTable&, RansCursor&, const std::byte*&, const std::byte*, std::uint8_t*,
                        std::size_t) {
  return 0;
}
std::uint16_t* encode_some(const RansEncodeTable&, std::uint32_t*, std::size_t, const std::uint8_t*, std::size_t,
                           std::uint16_t*) {
  return nullptr;
}
#endif

}  // namespace lmq::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lmq {
HWY_EXPORT(decode_some);
HWY_EXPORT(encode_some);

std::size_t rans_encode(const RansEncodeTable& table, std::span<const std::uint8_t> symbols,
                        std::span<std::uint32_t> states, std::span<std::uint16_t> words) noexcept {
  const std::size_t lanes = states.size(), steps = symbols.size() / lanes;
  if (baseline_forced() || lanes < 16 || steps == 0) return rans_encode_reference(table, symbols, states, words);
  const auto tail = symbols.subspan(steps * lanes);
  const std::size_t end = rans_encode_reference(table, tail, states, words);
  if (const std::uint16_t* begin =
          HWY_DYNAMIC_DISPATCH(encode_some)(table, states.data(), lanes, symbols.data(), steps, words.data() + end))
    return static_cast<std::size_t>(begin - words.data());
  return rans_encode_reference(table, symbols.first(steps * lanes), states, words.first(end));
}

namespace {
/// One lane without others, whose state stays in a register: step(x, symbol) is a symbol's frequency times x / M plus
/// its slot's place.
template <class Step>
bool decode_lane(RansCursor& cursor, std::span<std::uint8_t> symbols, const Step& step) noexcept {
  std::uint32_t x = cursor.state[0];
  const std::byte* word = cursor.word;
  bool enough = true;
  for (std::uint8_t& symbol : symbols) {
    x = step(x, symbol);
    if (x >= kRansLow) continue;
    enough = word != cursor.end;
    if (!enough) break;
    std::uint16_t next;
    std::memcpy(&next, word, sizeof next);
    word += sizeof next;
    x = x << 16 | next;
  }
  cursor.state[0] = x, cursor.word = word;
  return enough;
}
bool decode_lane(const RansDecodeTable& table, RansCursor& cursor, std::span<std::uint8_t> symbols) noexcept {
  const unsigned bits = table.bits;
  const std::uint32_t mask = (1U << bits) - 1;
  if (bits <= kRansQuickBits)
    return decode_lane(cursor, symbols, [&](std::uint32_t x, std::uint8_t& symbol) {
      const std::uint32_t entry = table.slot[x & mask];
      symbol = static_cast<std::uint8_t>(entry >> 24);
      return (entry >> 12 & 0xFFF) * (x >> bits) + (entry & 0xFFF);
    });
  return decode_lane(cursor, symbols, [&](std::uint32_t x, std::uint8_t& symbol) {
    symbol = table.symbol[x & mask];
    const std::uint32_t entry = table.freq_start[symbol];
    return (entry >> 16) * (x >> bits) + (x & mask) - (entry & 0xFFFF);
  });
}
}  // namespace

bool rans_decode(const RansDecodeTable& table, RansCursor& cursor, std::span<std::uint8_t> symbols) noexcept {
  if (cursor.lanes == 1) return decode_lane(table, cursor, symbols);
  if (baseline_forced() || cursor.lanes < 16) return rans_decode_reference(table, cursor, symbols);
  constexpr std::ptrdiff_t kReach = 2 * (kRansMaxLanes + 16);  // bytes one step may read
  const auto decode = HWY_DYNAMIC_DISPATCH(decode_some);
  std::size_t done = 0, steps = symbols.size() / cursor.lanes;
  if (cursor.end - cursor.word >= kReach) {
    const std::size_t now = decode(table, cursor, cursor.word, cursor.end - kReach, symbols.data(), steps);
    done += now * cursor.lanes, steps -= now;
  }
  if (steps > 0) {  // the last words, from a copy that may be read past its end
    std::byte last[3 * kReach] = {};
    const std::ptrdiff_t left = cursor.end - cursor.word;
    if (left < kReach) {
      if (left > 0) std::memcpy(last, cursor.word, static_cast<std::size_t>(left));
      const std::byte* word = last;
      const std::size_t now = decode(table, cursor, word, last + left, symbols.data() + done, steps);
      if (word > last + left) return false;
      cursor.word += word - last;
      done += now * cursor.lanes;
    }
  }
  return rans_decode_reference(table, cursor, symbols.subspan(done));
}

}  // namespace lmq
#endif
