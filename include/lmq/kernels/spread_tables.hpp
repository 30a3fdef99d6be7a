#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace lmq {

/// Codes of weights whose standard deviation is about 2^((c - 12) / 3) steps have the *spread class* c: a class fixes
/// the frequencies they are coded with. 61 classes, 1/16 to 2^16 steps.
inline constexpr unsigned kSpreadClasses = 61;
inline constexpr int kSpreadOfOne = 12;         ///< class of spread 1
inline constexpr unsigned kLastZeroClass = 11;  ///< up to spread 2^(-1/3) the odd quantizer has a zero
[[nodiscard]] constexpr bool is_with_zero(unsigned spread) noexcept { return spread <= kLastZeroClass; }

/// Frequencies of the codes of one class and quantizer; they sum to 2^kSpreadBits.
/// With a zero:  f[0] + 2 (f[1] + ... ) + escape, for 0, +-1, +-2, ...; without: 2 (f[0] + f[1] + ...) + escape, for 0
/// and -1, 1 and -2, ... A code whose magnitude has no frequency is an escape and raw bits.
inline constexpr unsigned kSpreadBits = 12;
inline constexpr unsigned kMaxMagnitudes = 32;
struct SpreadTable {
  bool zero = true;
  std::uint8_t magnitudes = 0;  ///< 1..kMaxMagnitudes, each with a frequency >= 1
  std::uint16_t escape = 0;     ///< >= 1
  std::array<std::uint16_t, kMaxMagnitudes> freq{};
};
/// True when the table keeps the rules above.
[[nodiscard]] bool is_valid(const SpreadTable& table) noexcept;

/// Which table codes of a class use, and how many of their lowest bits are raw: codes of more than spread 8 (of k) are
/// coded by their high part, which is symmetric about -1/2.
/// Tables of a trellis: 2 * class + quantizer for classes 0..24. Of one state: class 0..21, then odd tables of the
/// trellis.
struct SpreadChoice {
  unsigned table = 0;
  unsigned raw = 0;
};
inline constexpr unsigned kTrellisTables = 50, kScalarTables = 22, kSpreadTables = kTrellisTables + kScalarTables;
[[nodiscard]] SpreadChoice spread_choice(unsigned states, unsigned quantizer, unsigned spread) noexcept;

/// Tables of all classes: [kTrellisTables] of trellises, then [kScalarTables] of one state.
using SpreadFamily = std::array<SpreadTable, kSpreadTables>;
/// The built-in family: codes of normal weights, counted by `lmq_trellis_fit` (tests/bench) where the search was priced
/// by these tables themselves.
[[nodiscard]] const SpreadFamily& spread_family() noexcept;

/// Raw bits after an escape: 5 for n, the n low bits of (magnitude - magnitudes + 1), whose highest is 2^n, and a sign.
[[nodiscard]] constexpr unsigned escape_bits(std::uint32_t beyond) noexcept {
  unsigned bits = 6;
  for (std::uint32_t x = beyond + 1; x > 1; x >>= 1) ++bits;
  return bits;
}
/// Bits of a code of this magnitude, times 2^16; `raw` bits not counted. Doubles in fixed order: the same everywhere.
[[nodiscard]] std::uint32_t code_bits_q16(const SpreadTable& table, std::uint32_t magnitude) noexcept;

/// The table of these counts: frequencies of the fewest bits, magnitudes that are rarer than an escape left to it.
/// counts  [magnitudes], of both signs together; empty or all 0: a table of one magnitude
[[nodiscard]] SpreadTable fit_spread_table(std::span<const std::uint64_t> counts, bool zero);

/// Prices of codes for the search, in 1/4096 squared step: rho * bits. Magnitudes of 63 and more cost what 63 costs.
inline constexpr double kTrellisRho = 0.42, kScalarRho = 0.14;
inline constexpr std::uint32_t kPricedMagnitudes = 64;
struct TrellisRates {
  unsigned states = 0;
  std::array<std::array<std::array<std::int32_t, kPricedMagnitudes>, 2>, kSpreadClasses> price{};
  std::array<std::int32_t, 64> raw{};  ///< of a class; a magnitude's price is that of magnitude >> raw
};
/// rho: squared steps a bit is worth.
[[nodiscard]] TrellisRates make_trellis_rates(const SpreadFamily& family, unsigned states, double rho) noexcept;

}  // namespace lmq
