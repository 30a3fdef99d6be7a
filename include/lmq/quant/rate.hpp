#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lmq/quant/codebook.hpp"
#include "lmq/quant/group.hpp"
#include "lmq/quant/quantizer.hpp"

namespace lmq {

/// How the codes will be stored, which is what bits are counted for, and which numbers of levels are tried.
enum class RateCount : std::uint8_t {
  entropy,        ///< of any number of levels
  fixed_width,    ///< whole bits a code; powers of two of levels
  width_entropy,  ///< entropy, powers of two of levels
};

/// Points of the rate-distortion curve of a method on a group; pure: a function of the arguments.
/// methods with a slope  one point per lambda, in that order, by the quick search: a real code each, its price within
///                       1e-4 of what the method's fit finds at that slope. ecsq: 40 slopes of 5,000 values in 20 ms
/// other methods         one point per number of levels, least first: 2 .. 8 each, then about eight an octave up to
///                       256; of widths: the powers of two, 2 .. 256; none above the first that has a level for
///                       every value. `lambdas` is not looked at
/// options  complete ones of the method; what they say of rate, lambda, slope and levels is not looked at
/// Distortions of an unresolved group (wide types in bins) count every bin as if it lay at its mean, plus the scatter
/// inside. Errc::internal when no method has that id.
[[nodiscard]] std::vector<RatePoint> rate_curve(const Group& group, std::uint16_t method,
                                                const QuantizerOptions& options, std::span<const double> lambdas,
                                                RateCount count = RateCount::entropy);

/// The fewest levels of rate_curve's points, whatever the group: 1 of methods with a slope.
[[nodiscard]] std::size_t fewest_levels(std::uint16_t method, const QuantizerOptions& options,
                                        RateCount count = RateCount::entropy);

/// Bits and distortion of a codebook on a group: by its prices where the group has layers, by its cuts, or else the
/// nearest level, of each bin's mean.
[[nodiscard]] RatePoint rate_of(const Group& group, const Codebook& codebook, RateCount count = RateCount::entropy);

}  // namespace lmq
