#pragma once
#include <cstddef>
#include <span>
#include <vector>

#include "lmq/quant/quantizer.hpp"

namespace lmq {

/// What a method makes of a group when it may use so many levels.
struct LevelPoint {
  std::size_t wanted = 0;    ///< levels that were allowed
  std::size_t levels = 0;    ///< levels of the codebook
  double squared_error = 0;  ///< sum of importance * (w - q)^2 as the method assigns; its mean over stochastic draws
  double entropy_bits = 0;   ///< of the codes, per weight (counts)
};

/// Points for each of `wanted` (ascending, 2..256) with the method's options (`values` as in QuantizerOptions, empty:
/// by default); none where it sees layers. Where the method has a pass over all level counts, it serves many counts at once. A count that the
/// method does not take (Errc::usage: it prescribes another one, or its options ask for more) has no point. group: not
/// empty; bins count as their means, and their scatter is added. O(points of the group) beside the fits.
[[nodiscard]] std::vector<LevelPoint> level_curve(const Group& group, const QuantizerEntry& method,
                                                  std::span<const OptionValue> values,
                                                  std::span<const std::size_t> wanted);

/// Error and entropy of one codebook, as level_curve measures them.
[[nodiscard]] LevelPoint measure_codebook(const Group& group, const Codebook& codebook, Rounding rounding);

/// sum of importance * w^2.
[[nodiscard]] double group_energy(const Group& group) noexcept;

/// The same weights in about `most` bins, neighbours taken together: half of them by their distance, half by the weights
/// they hold. Zeros stay apart. The group itself where it has no more bins, or layers. O(bins).
[[nodiscard]] Group condensed(const Group& group, std::size_t most);

/// Every bin becomes its mean, a single value; scatter stays as it is.
[[nodiscard]] Group bins_as_values(const Group& group);

}  // namespace lmq
