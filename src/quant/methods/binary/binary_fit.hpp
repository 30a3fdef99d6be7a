#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/greedy_thresholds.hpp"
#include "lmq/quant/group.hpp"

namespace lmq {

// Least-squares binary codes of weights x by the magnitudes y = |x| alone (Pouransari, Tu & Tuzel 2020, Least squares
// binary quantization of neural networks). Means are weighted by importance; losses are sums of importance * error^2.

inline constexpr std::size_t kMaxBases = 8;

/// Magnitudes of a group, ascending, with prefix sums of weight (mass) and weight * magnitude (sum). A point is one
/// magnitude or, in a group that is not resolved, a bin: low <= high, and `point` its mean.
struct Magnitudes {
  std::vector<double> point, low, high;  ///< [m]; low and high stay empty where every point is one magnitude
  std::vector<double> mass, sum;         ///< [m + 1], [0] = 0
  double energy = 0;                     ///< sum weight * magnitude^2 of the points
  [[nodiscard]] std::size_t size() const noexcept { return point.size(); }
};

/// Buffers for the magnitudes of one group after another.
struct MagnitudeScratch {
  std::vector<std::int32_t> keys;
  std::vector<std::int64_t> items;
  Magnitudes magnitudes;
  std::vector<double> residual;
};

/// values      [n] finite, n >= 1
/// importance  [n] finite, >= 0, or empty: all ones; all zero counts as all ones, weights below kMinWeight of the
///             largest count as that
/// Returns scratch.magnitudes. Cost: about 3 ns a value for n = 128.
const Magnitudes& sorted_magnitudes(std::span<const float> values, std::span<const float> importance,
                                    MagnitudeScratch& scratch);
/// The magnitudes of the values on one side of 0 alone (`negative`: those below); may be empty.
const Magnitudes& sorted_side(std::span<const float> values, std::span<const float> importance, bool negative,
                              MagnitudeScratch& scratch);

/// Bins of both signs as magnitudes; bins that overlap become one. members[i] .. members[i + 1]: the bins of the group
/// (positions in `bins`) that point i was made of.
struct FoldedGroup {
  Magnitudes magnitudes;
  std::vector<std::uint32_t> bins, members;
};
enum class Side : std::uint8_t { both, negative, positive };
[[nodiscard]] FoldedGroup fold(const Group& group, Side side = Side::both);

/// 1 bit: v = E y, codes sign(x). Exact (section 3.1 of the paper).
[[nodiscard]] double one_bit(const Magnitudes& y);

/// The best two magnitudes `low` <= `high`: two means by one scan (levels +-high, +-low; v_1 = (high + low) / 2, v_2 =
/// (high - low) / 2). Exact.
struct TwoMeans {
  double low = 0, high = 0;
};
[[nodiscard]] TwoMeans two_means(const Magnitudes& y);

/// The t of the best code {0, t} for magnitudes, by one scan from the top: t = mean of those it serves. Exact; 0 when
/// all are 0 or there are none.
[[nodiscard]] double top_mean(const Magnitudes& y);

/// Points (ascending) inside which a threshold of a better two_means (or top_mean) of the true magnitudes may lie;
/// empty when the result is the optimum of the true magnitudes. A part of a bin taken from below has a sum between mass
/// * low and mass * mean, and what it leaves at most high each; gain is convex in (mass, sum), so that it is greatest
/// in a corner of that triangle: an edge of the bin, or the bin as two values low and high.
[[nodiscard]] std::vector<std::uint32_t> open_two_means(const Magnitudes& y);
[[nodiscard]] std::vector<std::uint32_t> open_top_mean(const Magnitudes& y);

/// Bases v of the greedy code (GF, section 4 of the paper): r = x; v_i = E|r|, r = r - v_i sign(r). In the order
/// found, which need not descend. points of width: exact where no fold lies inside a bin. Cost O(m k).
void greedy_bases(const Magnitudes& y, std::span<double> bases, std::vector<double>& residual);

/// One step of alternation: returns the loss of `bases` with the nearest code, and replaces them by the weighted least
/// squares solution for that code (negative ones mirrored, descending), whose loss is not greater.
double refine_step(const Magnitudes& y, std::span<double> bases);
/// Alternates until the loss no longer falls (by 1e-12 of the energy) or 200 times; returns the loss. bases descend and
/// are >= 0 afterwards. Cost of a step O(2^k (k^2 + log m)).
double refine_bases(const Magnitudes& y, std::span<double> bases);
/// The best of refine_bases from the greedy bases, from two exact ones extended greedily, and from the best for
/// normal and for Laplace weights.
double best_refined(const Magnitudes& y, std::span<double> bases, std::vector<double>& residual);

/// Loss of the nearest of the 2^k sums of +-bases for every point.
[[nodiscard]] double loss_of_bases(const Magnitudes& y, std::span<const double> bases);

/// The non-negative ones of the 2^k sums, ascending, [2^(k-1)], each with its code (bit k - j set: + v_j).
struct SignedSum {
  double level;
  std::uint32_t code;
};
void magnitude_sums(std::span<const double> bases, std::span<SignedSum> sums);

/// Places where the code of a magnitude changes, ascending: between nearest sums (greedy_thresholds: core).
[[nodiscard]] std::vector<double> nearest_thresholds(std::span<const double> bases);
/// Points (ascending) with a threshold strictly inside, low < threshold <= high.
[[nodiscard]] std::vector<std::uint32_t> straddled(const Magnitudes& y, std::span<const double> thresholds);

}  // namespace lmq
