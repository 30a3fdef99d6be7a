#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace lmq {

/// Interleaved static rANS over alphabets of 2..256 symbols (Duda 2009; Giesen 2014, "Interleaved entropy coders").
/// Lane j of a run of L lanes codes the symbols j, j + L, j + 2L, ...; each lane is a 32-bit state x >= kRansLow that
/// is refilled by 16-bit words. With frequencies f summing to M = 2^bits and starts b (sum of the f before), decoding
/// does
///   slot = x mod M;  s = largest symbol with b[s] <= slot;  x = f[s] * (x / M) + slot - b[s];
///   if x < kRansLow: x = x * 2^16 + next word          (lanes of a step take their words in ascending order)
/// Coding does the reverse from the last symbol to the first. It starts each lane at a state in [kRansLow, 2 *
/// kRansLow) of the caller's choice: 16 bits that the decoder finds in the end.
inline constexpr std::uint32_t kRansLow = 1U << 16;
inline constexpr unsigned kRansMinBits = 8;
inline constexpr unsigned kRansMaxBits = 15;
inline constexpr std::size_t kRansMaxLanes = 64;
/// Decoders without long vectors look up a slot whole, in half the time, for at most so many bits.
inline constexpr unsigned kRansQuickBits = 12;
/// Symbols that long vectors look up in registers, where bits are of no importance.
inline constexpr unsigned kRansFewSymbols = 32;
/// Words that must be writable before those rans_encode returns.
inline constexpr std::size_t kRansSlackWords = 16;

/// Lanes of a run of so many symbols (part of the format): few for short runs, whose states would cost too much.
[[nodiscard]] constexpr std::size_t rans_lanes(std::uint64_t symbols) noexcept {
  return symbols >= (1U << 17) ? 64 : symbols >= (1U << 14) ? 16 : 4;
}

/// Frequencies of an alphabet: bits in [kRansMinBits, kRansMaxBits], f[s] < 2^bits for s < symbols, their sum 2^bits.
struct RansModel {
  unsigned bits = 0;
  unsigned symbols = 0;
  std::array<std::uint16_t, 256> freq{};
};
/// True when the model keeps the rules above.
[[nodiscard]] bool is_valid(const RansModel& model) noexcept;

/// What coding one symbol needs. x / f is the high word of (x + increment) * reciprocal, shifted right: exact for every
/// state below f * 2^(32 - bits) (tests/codec/rans_test.cpp tries them; the proof stands beside
/// make_rans_encode_table).
struct alignas(64) RansEncodeTable {
  unsigned bits = 0;
  unsigned symbols = 0;
  std::uint32_t increment = 0;
  std::array<std::uint32_t, 256> reciprocal{};
  std::array<std::uint32_t, 256> limit_bias{};        ///< high 15 bits: f << (32 - bits); low 17: start (+ M - 1)
  std::array<std::uint32_t, 256> complement_shift{};  ///< high half: M - f; low half: the shift
};
void make_rans_encode_table(const RansModel& model, RansEncodeTable& table) noexcept;

struct alignas(64) RansDecodeTable {
  unsigned bits = 0;
  unsigned symbols = 0;
  std::array<std::uint32_t, 256> freq_start{};  ///< f << 16 | b
  std::array<std::uint32_t, 64> start{};        ///< b, then M for the symbols that do not exist; for kRansFewSymbols
  std::array<std::uint32_t, 4096> slot{};       ///< when bits <= 12: symbol << 24 | f << 12 | slot - b
  std::array<std::uint8_t, (1U << kRansMaxBits) + 4> symbol{};  ///< of a slot
};
void make_rans_decode_table(const RansModel& model, RansDecodeTable& table) noexcept;

/// Codes `symbols` (each < table.symbols, with a frequency above 0) on states.size() lanes (4, 16 or 64).
/// words: room; the coded words end at its end and begin at the returned index. Room for symbols.size() words and
/// kRansSlackWords before them is always enough (a symbol emits at most one word).
/// states: where coding starts, replaced by where decoding starts. About 0.3 ns per symbol of an alphabet of up to 32,
/// 1 ns above.
[[nodiscard]] std::size_t rans_encode(const RansEncodeTable& table, std::span<const std::uint8_t> symbols,
                                      std::span<std::uint32_t> states, std::span<std::uint16_t> words) noexcept;
/// The same in plain loops: the meaning, and the twin for tests.
[[nodiscard]] std::size_t rans_encode_reference(const RansEncodeTable& table, std::span<const std::uint8_t> symbols,
                                                std::span<std::uint32_t> states,
                                                std::span<std::uint16_t> words) noexcept;

/// The last symbols as one lane, as many as `words` has room for: from the last one down to the one that would need a
/// word more. state: where coding starts, replaced by where decoding starts (lanes = 1). For short runs, whose words
/// go where room is limited; 3 ns per symbol.
struct RansLast {
  std::size_t symbols = 0;  ///< how many were coded
  std::size_t begin = 0;    ///< their words end at the end of the room and begin here
};
[[nodiscard]] RansLast rans_encode_last(const RansEncodeTable& table, std::span<const std::uint8_t> symbols,
                                        std::uint32_t& state, std::span<std::uint16_t> words) noexcept;

/// A decoder between two portions.
struct RansCursor {
  std::array<std::uint32_t, kRansMaxLanes> state{};
  std::size_t lanes = 0;
  const std::byte* word = nullptr;  ///< next word (little-endian, any alignment)
  const std::byte* end = nullptr;   ///< end of the words, a whole number of them after `word`
};
/// Decodes the next symbols.size() symbols; all portions but the last are multiples of the lanes. False when the words
/// run out. Never reads past `end`; any states and words give symbols < table.symbols.
[[nodiscard]] bool rans_decode(const RansDecodeTable& table, RansCursor& cursor,
                               std::span<std::uint8_t> symbols) noexcept;
[[nodiscard]] bool rans_decode_reference(const RansDecodeTable& table, RansCursor& cursor,
                                         std::span<std::uint8_t> symbols) noexcept;
/// True when every word was used and every lane is back in the range where coding began.
[[nodiscard]] bool rans_finished(const RansCursor& cursor) noexcept;

}  // namespace lmq
