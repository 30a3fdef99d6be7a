#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "lmq/kernels/trellis.hpp"

namespace lmq {

/// The four sets of values above 0 (and what lies on its other side), in steps, and the place of m in them:
///   0: 4m       1: 4m + 2       2: 4m + 1       3: 4m - 1, with zero 0 for m = 0
inline constexpr std::int32_t kSetOffset[4] = {0, 2, 1, -1};
/// Bits of the fraction of a step, of a step squared in a price, and what a path's cost begins with where no path is.
inline constexpr int kSquareShift = 12;
inline constexpr std::int32_t kNoPath = std::int32_t{1} << 29;
/// Costs of paths are lowered so often; a weight adds less than 2^19.
inline constexpr std::size_t kLowerEvery = 256;

/// Searches branch by branch: costs and codes of quantizer Q and parity b at [2 Q + b].
struct Branches {
  std::int32_t cost[4];
  std::int32_t code[4];
};
[[nodiscard]] Branches trellis_branches(const TrellisRates& rates, std::int32_t target, unsigned spread,
                                        std::int32_t weight) noexcept;

/// Codes of one state: no path.
std::int32_t scalar_code(const TrellisRates& rates, std::int32_t target, unsigned spread, std::int32_t weight) noexcept;

inline std::int32_t weight_of(const TrellisRun& run, std::size_t i) noexcept {
  return run.weight.empty() ? kTrellisOne : run.weight[i];
}

/// From the state of least cost back to the first weight. codes_of(i, branch) is a code.
template <class CodeOf>
unsigned trace_back(unsigned states, const std::int32_t* cost, std::span<const std::uint32_t> odd,
                    std::span<std::int32_t> codes, const CodeOf& code_of) noexcept {
  const TrellisTaps taps = trellis_taps(states);
  unsigned state = static_cast<unsigned>(std::min_element(cost, cost + states) - cost);
  const unsigned last = state;
  for (std::size_t i = codes.size(); i-- > 0;) {
    const unsigned bit = odd[i] >> state & 1, quantizer = state >= states / 2 ? 1 : 0;
    codes[i] = code_of(i, 2 * quantizer + bit);
    state = trellis_before(taps, states, state, bit);
  }
  return last;
}

}  // namespace lmq
