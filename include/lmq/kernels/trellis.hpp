#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lmq/kernels/spread_tables.hpp"

namespace lmq {

/// Trellis-coded quantization on the integers (Marcellin & Fischer 1990; systematic rate-1/2 codes of Ungerboeck 1982).
/// A weight is a code k; a state says which of two quantizers turns it into a whole number of steps:
///   quantizer 0:             v = 2k
///   quantizer 1, no zero:    v = 2k + 1
///   quantizer 1, with zero:  v = 2k - sgn(k)          (classes of small spread: a path of zeros may then rest)
/// State S uses quantizer S & 1; the next state follows from S and the parity of k. State 0 with k = 0 stays 0. One
/// state: v = k, no trellis.
inline constexpr unsigned kTrellisMaxStates = 32;
[[nodiscard]] constexpr bool is_trellis_states(unsigned states) noexcept {
  return states == 1 || states == 4 || states == 8 || states == 16 || states == 32;
}

/// What an odd state and an odd code add to the state shifted down (generators 5,2; 13,4; 23,4; 45,10, octal, halved).
struct TrellisTaps {
  unsigned state = 0, code = 0;
};
[[nodiscard]] constexpr TrellisTaps trellis_taps(unsigned states) noexcept {
  return states == 4    ? TrellisTaps{2, 1}
         : states == 8  ? TrellisTaps{5, 2}
         : states == 16 ? TrellisTaps{9, 2}
         : states == 32 ? TrellisTaps{18, 4}
                        : TrellisTaps{};
}
[[nodiscard]] constexpr unsigned trellis_next(TrellisTaps taps, unsigned state, std::int32_t code) noexcept {
  return state >> 1 ^ ((state & 1) != 0 ? taps.state : 0U) ^ ((code & 1) != 0 ? taps.code : 0U);
}
/// The state before `state` whose code had the parity `odd` (0, 1). Both have the same quantizer, state >= states / 2.
[[nodiscard]] constexpr unsigned trellis_before(TrellisTaps taps, unsigned states, unsigned state,
                                                unsigned odd) noexcept {
  const unsigned quantizer = state >= states / 2 ? 1 : 0;
  return 2 * (state ^ (quantizer != 0 ? taps.state : 0U) ^ (odd != 0 ? taps.code : 0U)) + quantizer;
}

/// Whole number of steps of code k, |k| <= kMaxTrellisCode.
[[nodiscard]] constexpr std::int32_t trellis_value(unsigned states, unsigned quantizer, unsigned spread,
                                                   std::int32_t k) noexcept {
  if (states == 1) return k;
  if (quantizer == 0) return 2 * k;
  return is_with_zero(spread) ? 2 * k - (k > 0) + (k < 0) : 2 * k + 1;
}
/// |k|, or where codes have no zero k >= 0 ? k : -k - 1.
[[nodiscard]] constexpr std::uint32_t trellis_magnitude(bool zero, std::int32_t k) noexcept {
  return static_cast<std::uint32_t>(k >= 0 ? k : zero ? -k : -k - 1);
}

/// Targets are whole numbers of 1/256 step; so far from 0 at most.
inline constexpr std::int32_t kTrellisOne = 256;
inline constexpr std::int32_t kMaxTrellisTarget = std::int32_t{1} << 28;
inline constexpr std::int32_t kMaxTrellisCode = kMaxTrellisTarget / kTrellisOne + 2;

/// Weights in the order of a path.
struct TrellisRun {
  std::span<const std::int32_t> target;   ///< in 1/256 step, |target| <= kMaxTrellisTarget
  std::span<const std::uint8_t> spread;   ///< class of each, < kSpreadClasses
  std::span<const std::uint16_t> weight;  ///< of the squared error, in 1/256, 1..511; or empty: 256 each
};

/// Room that is used again; a run takes 36 bytes a weight.
struct TrellisScratch {
  std::vector<std::int32_t> costs, codes;
  std::vector<std::uint32_t> odd;
  void reserve(std::size_t weights);
};

/// The codes of least sum_i weight_i (target_i - value_i)^2 + price of code_i over all paths from the state `start`;
/// returns the state at their end. All in integers (TrellisRates), so the same for any instruction set. Of two codes as
/// good the smaller magnitude wins, of two paths into a state the one whose code is even, in the end the lowest state.
/// For each quantizer and parity the nearest value and its neighbour towards 0 are tried: no other can win, since 4
/// steps more cost at least 16 squared steps and no table prices two codes 30 bits apart.
/// run.target.size() == codes.size() == run.spread.size(). Cost: see docs/methods/waterfill.md.
unsigned trellis_search(const TrellisRates& rates, const TrellisRun& run, unsigned start, TrellisScratch& scratch,
                        std::span<std::int32_t> codes) noexcept;
/// The same in plain loops: the meaning, and the twin for tests.
unsigned trellis_search_reference(const TrellisRates& rates, const TrellisRun& run, unsigned start,
                                  TrellisScratch& scratch, std::span<std::int32_t> codes) noexcept;

}  // namespace lmq
