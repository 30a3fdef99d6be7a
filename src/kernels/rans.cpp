#include "lmq/kernels/rans.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace lmq {

bool is_valid(const RansModel& model) noexcept {
  if (model.bits < kRansMinBits || model.bits > kRansMaxBits || model.symbols < 2 || model.symbols > 256) return false;
  const std::uint32_t whole = 1U << model.bits;
  std::uint32_t sum = 0;
  for (unsigned s = 0; s < 256; ++s) {
    const std::uint32_t f = model.freq[s];
    if (f >= whole || (s >= model.symbols && f != 0)) return false;
    sum += f;
  }
  return sum == whole;
}

// Division. Let N = 32 + shift and x < f * 2^(32 - bits), the bound every state meets before its step.
// increment 0: r = ceil(2^N / f) with error e = r * f - 2^N; floor(x * r / 2^N) = floor(x / f) when x * e < 2^N.
// increment 1: r = floor((2^N - 1) / f) with error e = 2^N - r * f; floor((x + 1) * r / 2^N) = floor(x / f) when
// (x + 1) * e <= 2^N and e > 0 (Robison 2005, "N-bit unsigned division via N-bit multiply-add").
// With 2^shift <= f < 2^(shift + 1) both bounds follow from e <= f while shift + 2 <= bits. Only f > M / 2 has shift +
// 1 = bits, and then the smaller of the two errors, at most f / 2, meets its bound; one symbol at most is so frequent,
// and it decides the increment for all. Exceptions with increment 0: f = 2^shift needs one shift less to keep r below
// 2^32; f = 1 takes r = 2^32 - 1, which gives x - 1, and a start that makes up for it.
void make_rans_encode_table(const RansModel& model, RansEncodeTable& table) noexcept {
  const std::uint32_t whole = 1U << model.bits;
  table.bits = model.bits;
  table.symbols = model.symbols;
  table.increment = 0;
  for (unsigned s = 0; s < model.symbols; ++s)
    if (const std::uint64_t f = model.freq[s]; f > whole / 2) {
      const std::uint64_t down = (1ULL << (31 + model.bits)) % f;
      table.increment = f - down > down ? 1 : 0;
    }
  std::uint32_t start = 0;
  for (unsigned s = 0; s < 256; ++s) {
    const std::uint32_t f = model.freq[s];
    table.reciprocal[s] = table.limit_bias[s] = table.complement_shift[s] = 0;
    if (f == 0) continue;
    std::uint32_t shift = static_cast<std::uint32_t>(std::bit_width(f)) - 1, bias = start;
    std::uint64_t reciprocal = 0;
    if (table.increment) {
      reciprocal = ((1ULL << (32 + shift)) - 1) / f;
    } else if (f == 1) {
      reciprocal = 0xFFFFFFFF;
      bias += whole - 1;
    } else {
      if (std::has_single_bit(f)) --shift;
      reciprocal = ((1ULL << (32 + shift)) + f - 1) / f;
    }
    table.reciprocal[s] = static_cast<std::uint32_t>(reciprocal);
    table.limit_bias[s] = f << (32 - model.bits) | bias;
    table.complement_shift[s] = (whole - f) << 16 | shift;
    start += f;
  }
}

void make_rans_decode_table(const RansModel& model, RansDecodeTable& table) noexcept {
  const std::uint32_t whole = 1U << model.bits;
  table.bits = model.bits;
  table.symbols = model.symbols;
  table.freq_start.fill(0);
  table.start.fill(whole);
  std::uint32_t start = 0;
  for (unsigned s = 0; s < model.symbols; ++s) {
    const std::uint32_t f = model.freq[s];
    table.freq_start[s] = f << 16 | start;
    if (s < table.start.size()) table.start[s] = start;
    std::memset(table.symbol.data() + start, static_cast<int>(s), f);
    if (model.bits <= kRansQuickBits)
      for (std::uint32_t k = 0; k < f; ++k) table.slot[start + k] = s << 24 | f << 12 | k;
    start += f;
  }
}

namespace {
constexpr std::uint32_t kBias = (1U << 17) - 1;

/// True when a state must give up a word before the symbol.
bool is_full(const RansEncodeTable& table, unsigned s, std::uint32_t x) noexcept {
  return x >= (table.limit_bias[s] & ~kBias);
}
std::uint32_t push(const RansEncodeTable& table, unsigned s, std::uint32_t x) noexcept {
  const std::uint64_t product = std::uint64_t{x + table.increment} * table.reciprocal[s];
  const std::uint32_t quotient = static_cast<std::uint32_t>(product >> 32) >> (table.complement_shift[s] & 31);
  return x + (table.limit_bias[s] & kBias) + quotient * (table.complement_shift[s] >> 16);
}
}  // namespace

std::size_t rans_encode_reference(const RansEncodeTable& table, std::span<const std::uint8_t> symbols,
                                  std::span<std::uint32_t> states, std::span<std::uint16_t> words) noexcept {
  std::size_t begin = words.size(), lane = symbols.size() % states.size();
  for (std::size_t i = symbols.size(); i-- > 0;) {
    lane = lane == 0 ? states.size() - 1 : lane - 1;
    const unsigned s = symbols[i];
    std::uint32_t x = states[lane];
    if (is_full(table, s, x)) {
      words[--begin] = static_cast<std::uint16_t>(x);
      x >>= 16;
    }
    states[lane] = push(table, s, x);
  }
  return begin;
}

RansLast rans_encode_last(const RansEncodeTable& table, std::span<const std::uint8_t> symbols, std::uint32_t& state,
                          std::span<std::uint16_t> words) noexcept {
  std::size_t begin = words.size(), left = symbols.size();
  std::uint32_t x = state;
  for (; left > 0; --left) {
    const unsigned s = symbols[left - 1];
    if (is_full(table, s, x)) {
      if (begin == 0) break;
      words[--begin] = static_cast<std::uint16_t>(x);
      x >>= 16;
    }
    x = push(table, s, x);
  }
  state = x;
  return {.symbols = symbols.size() - left, .begin = begin};
}

bool rans_decode_reference(const RansDecodeTable& table, RansCursor& cursor, std::span<std::uint8_t> symbols) noexcept {
  const std::uint32_t mask = (1U << table.bits) - 1;
  std::size_t lane = 0;
  for (std::uint8_t& symbol : symbols) {
    const std::uint32_t slot = cursor.state[lane] & mask;
    symbol = table.symbol[slot];
    const std::uint32_t entry = table.freq_start[symbol];
    std::uint32_t x = (entry >> 16) * (cursor.state[lane] >> table.bits) + slot - (entry & 0xFFFF);
    if (x < kRansLow) {
      if (cursor.word == cursor.end) return false;
      std::uint16_t word;
      std::memcpy(&word, cursor.word, sizeof word);
      cursor.word += sizeof word;
      x = x << 16 | word;
    }
    cursor.state[lane] = x;
    if (++lane == cursor.lanes) lane = 0;
  }
  return true;
}

bool rans_finished(const RansCursor& cursor) noexcept {
  return cursor.word == cursor.end &&
         std::all_of(cursor.state.begin(), cursor.state.begin() + static_cast<std::ptrdiff_t>(cursor.lanes),
                     [](std::uint32_t x) { return x >= kRansLow && x < 2 * kRansLow; });
}

}  // namespace lmq
