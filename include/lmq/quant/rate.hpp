#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lmq/quant/codebook.hpp"
#include "lmq/quant/group.hpp"
#include "lmq/quant/quantizer.hpp"

namespace lmq {

/// What a codebook costs and gains on a group, all its weights together.
struct RatePoint {
  double lambda = 0;      ///< slope it belongs to (importance * squared error per bit); NaN: none, a number of levels
  double bits = 0;        ///< of the codes: their entropy, or count * fixed width; codebooks and headers left out
  double distortion = 0;  ///< sum of importance * error^2
  std::size_t levels = 0;
};

/// How the codes will be stored, which is what bits are counted for.
enum class RateCount : std::uint8_t { entropy, fixed_width };

/// Points of the rate-distortion curve of a method on a group; pure: a function of the arguments.
/// ecsq, ecsq-iter, ecsq-uniform   one point per lambda, in that order, by the quick search: a real code each, its
/// price
///                                 within 1e-4 of what fit_at finds. 40 slopes of 5,000 values in some 20 ms (ecsq)
/// other methods                   one point per number of levels, least first: 2 .. 8 each, then about eight an octave
///                                 up to 256; fixed width: the powers of two. `lambdas` is not looked at
/// options: settled ones of the method; what they say of rate, lambda, slope and levels is not looked at. Distortions
/// of an unresolved group (wide types in bins) count every bin as if it lay at its mean, plus the scatter inside.
[[nodiscard]] std::vector<RatePoint> rate_curve(const Group& group, std::uint16_t method,
                                                const QuantizerOptions& options, std::span<const double> lambdas,
                                                RateCount count = RateCount::entropy);

struct RateFit {
  Codebook codebook;
  RatePoint point;
  QuantizerOptions options;  ///< with these the method's fit gives this codebook
};
/// The method's codebook of least distortion + lambda * bits: of the entropy-constrained methods their fit at that
/// slope (exact where they are), of the others the best number of levels of rate_curve.
[[nodiscard]] RateFit fit_at(const Group& group, std::uint16_t method, const QuantizerOptions& options, double lambda,
                             RateCount count = RateCount::entropy);

/// Bits and distortion of a codebook on a group: by its prices where the group has layers, by its cuts, or else the
/// nearest level, of each bin's mean.
[[nodiscard]] RatePoint rate_of(const Group& group, const Codebook& codebook, RateCount count = RateCount::entropy);

}  // namespace lmq
