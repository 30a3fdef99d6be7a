#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace lmq {

/// Floats in ascending order as unsigned integers: key(-0) == key(+0), key(a) < key(b) iff a < b. Finite values only.
[[nodiscard]] std::uint32_t ordered_key(float value) noexcept;
[[nodiscard]] float from_ordered_key(std::uint32_t key) noexcept;
inline constexpr std::uint32_t kLowestKey = 0x00800000u, kHighestKey = 0xFF7FFFFFu;  ///< of finite floats

/// A range of keys in which a solver wants to look closer: bins of 2^span_bits keys from `begin` to `end` inclusive.
struct KeyRange {
  std::uint32_t begin = 0;
  std::uint32_t end = 0;
  std::uint32_t span_bits = 0;
};

/// Least weight of a value among values in hand, as a part of the largest: so every value is near a level.
inline constexpr double kMinWeight = 0x1p-30;

struct GroupLayer;

/// Weights that share a codebook, reduced to ascending disjoint bins (the sufficient statistic of every method that
/// depends on values only; reference: sorted distinct values). A bin with low == high is one distinct value, exactly.
struct Group {
  std::vector<float> low, high;    ///< [bins] first and last value that may lie in the bin (low <= high)
  std::vector<double> count;       ///< [bins] n_j: weights in the bin, > 0
  std::vector<double> mass;        ///< [bins] a_j: sum of importance (== count when unweighted), > 0
  std::vector<double> mean;        ///< [bins] importance-weighted mean of the bin's values
  std::vector<double> scatter;     ///< [bins] importance-weighted sum of (value - mean)^2 in the bin; 0 for one value
  float minimum = 0, maximum = 0;  ///< exact extremes of all values (0 when empty)
  /// The same weights by importance, ascending, where a method asks for it (Quantizer::by_importance) and they are not
  /// all alike: the two-dimensional histogram. Else empty.
  std::vector<GroupLayer> layers;
  [[nodiscard]] std::size_t size() const noexcept { return low.size(); }
  /// True when every bin is one value: then a fit is exact and final.
  [[nodiscard]] bool resolved() const noexcept;
};

/// Weights of a group of nearly the same importance.
struct GroupLayer {
  double importance = 1;  ///< what stands for it
  Group group;            ///< has no layers
};

/// The ranges that cut every bin of an unresolved group into as many parts as a budget of bins allows (a power of two,
/// the same for all; bins of fewer keys into single values). Empty when not even halves fit, or all bins are values: a
/// method that needs the same resolution everywhere asks until then. Cost O(bins).
[[nodiscard]] std::vector<KeyRange> refine_all(const Group& group, std::size_t most_bins);
/// The ranges that cut only these bins (ascending, none a single value) as finely as the budget allows, at least in
/// two.
[[nodiscard]] std::vector<KeyRange> refine_at(const Group& group, std::span<const std::uint32_t> bins,
                                              std::size_t most_bins);
/// Last key of a bin, inclusive, and log2 of how many keys it spans.
[[nodiscard]] std::uint32_t last_key(const Group& group, std::size_t bin) noexcept;
[[nodiscard]] unsigned span_bits(const Group& group, std::size_t bin) noexcept;

}  // namespace lmq
