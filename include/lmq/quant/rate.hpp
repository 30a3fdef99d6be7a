#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
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
///                       every value. Of methods without a pass over all numbers some are found between others
///                       (level_points). `lambdas` is not looked at
/// options  complete ones of the method; what they say of rate, lambda, slope and levels is not looked at
/// Distortions of an unresolved group (wide types in bins) count every bin as if it lay at its mean, plus the scatter
/// inside. Errc::internal when no method has that id.
[[nodiscard]] std::vector<RatePoint> rate_curve(const Group& group, std::uint16_t method,
                                                const QuantizerOptions& options, std::span<const double> lambdas,
                                                RateCount count = RateCount::entropy);

/// The fewest levels of rate_curve's points, whatever the group: 1 of methods with a slope.
[[nodiscard]] std::size_t fewest_levels(std::uint16_t method, const QuantizerOptions& options,
                                        RateCount count = RateCount::entropy);

/// Complete options of the method for each number of levels that rate_curve tries, least first; `options` themselves
/// where they fix the number.
[[nodiscard]] std::vector<QuantizerOptions> level_options(std::uint16_t method, const QuantizerOptions& options,
                                                          RateCount count = RateCount::entropy);
/// A point for each of level_options, at the end less where there are fewer values than levels. point_of: asked for all
/// of them, or for 2, 3, 4, 6, 8, 12 ... levels, the others by fill_between; from several threads.
[[nodiscard]] std::vector<RatePoint> level_points(const std::vector<QuantizerOptions>& options, bool all,
                                                  const std::function<RatePoint(const QuantizerOptions&)>& point_of);
/// Bits and distortions of the points between the known ones: bits and the logarithm of the distortion are straight.
/// known   ascending indices of points that are known, the first and the last of those that are wanted among them
/// places  [points] where they stand, strictly monotone
void fill_between(std::span<const std::size_t> known, std::span<const double> places, std::span<RatePoint> points);

/// Bits and distortion of a codebook on a group: the mean over draws of stochastic rounding, by its prices where the
/// group has layers, by its cuts, or else the nearest level, of each bin's mean.
[[nodiscard]] RatePoint rate_of(const Group& group, const Codebook& codebook, RateCount count = RateCount::entropy,
                                Rounding rounding = Rounding::cuts);

}  // namespace lmq
