#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lmq/base/quantized_unit.hpp"

namespace lmq {

// Unbiased quantization of a vector: gradients, optimizer states, embeddings. No files, no MPI; see
// docs/methods/stochastic.md for what the objectives mean and how good the levels are.

/// What the levels of unbiased rounding are to minimise. Rounding x to neighbouring levels a <= x <= b, up with
/// probability (x - a) / (b - a), has the mean x and the variance (b - x)(x - a).
enum class LevelObjective : std::uint8_t {
  total_variance,  ///< sum of weight * variance: the expected squared error; with weights E[input^2], that of an inner
                   ///< product with random inputs
  largest_variance,  ///< max of weight * variance: the error of an inner product with the worst input of norm 1
};

struct LevelChoice {
  std::size_t levels = 16;  ///< wanted, 1..256; 1 only for values that are all equal
  LevelObjective objective = LevelObjective::total_variance;
  double slack = 0;      ///< 0: the optimum; else proven to cost at most 1 + slack of it
  std::size_t grid = 0;  ///< > 0: the best levels among the ends of so many cells of equal width. With 2 s - 2 levels
                         ///< they cost at most the optimum of s plus sum of weight * (range / grid)^2 / 4. Only for
                         ///< total_variance.
};

struct StochasticLevels {
  std::vector<float> levels;  ///< strictly ascending, the first is the least value, the last the greatest
  double cost = 0;            ///< the objective with these levels
  double bound = 0;           ///< no levels cost less, up to rounding; 0 where it is not known (grid)
};

/// The levels of a vector.
/// values   [n] finite, any order, n >= 1
/// weights  [n] finite, >= 0, or empty: all ones. All zero counts as all ones; values of weight 0 cost nothing.
/// Fewer levels come back where fewer values are distinct: then the cost is 0.
/// Errors   Errc::usage (levels outside 1..256, one level for several values, slack < 0, a grid of one cell,
///          weights and values differ in number); Errc::malformed (no values; a value or weight that is not finite, or
///          negative: named by its index)
/// Cost     O(n) and O(levels^2 log n), about: 2^24 floats, 16 levels in .1 s on one core. No sorting
///          beyond 2^16 values
/// Same bits  for any thread count and instruction set
/// Source   ASQ: Zhang et al. 2017 (ZipML), section 3.2; Ben Basat et al. 2024 (QUIVER). Objectives of inner products:
///          White & Singal 2026. The solver is described in docs/methods/stochastic.md.
[[nodiscard]] StochasticLevels stochastic_levels(std::span<const float> values, std::span<const float> weights,
                                                 const LevelChoice& choice);

/// Rounds every value to one of its two neighbouring levels at random: the mean of a code's level is the value (to
/// 2^-32 of the distance of the levels); values outside the levels get the outermost one.
/// levels  ascending, 1..256
/// seed, subject, first  the draw of value i is a pure function of (seed, subject, first + i): the same for any way to
///         cut the vector into parts; other seeds, other draws. Errc::usage when codes and values differ in number.
void round_stochastically(std::span<const float> values, std::span<const float> levels, std::uint64_t seed,
                          std::uint64_t subject, std::uint64_t first, std::span<Code> codes);

/// Sum of weight * (b - x)(x - a): what round_stochastically adds to the squared error on average.
[[nodiscard]] double total_variance(std::span<const float> values, std::span<const float> weights,
                                    std::span<const float> levels);
/// Max of weight * (b - x)(x - a).
[[nodiscard]] double largest_variance(std::span<const float> values, std::span<const float> weights,
                                      std::span<const float> levels);

}  // namespace lmq
