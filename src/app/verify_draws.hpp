#pragma once
#include <cstdint>
#include <string>

#include <vector>
#include "lmq/container/quantized_file.hpp"

#include "verify_units.hpp"

namespace lmq::app {

/// Independent draws of stochastic rounding against the original, summed over weights. With V = (b - w)(w - a) for the
/// levels a <= w <= b around a weight, the mean of R draws has the variance V / R.
struct DrawSums {
  double weights = 0;
  double one = 0, one_expected = 0;    ///< squared error of the stored codes; sum V
  double mean = 0, mean_expected = 0;  ///< squared error of the mean of R draws; sum V / R
  double mean_variance = 0;            ///< variance of `mean`
  double bias = 0;                     ///< sum of (mean of the draws - w); its variance is mean_expected

  DrawSums& operator+=(const DrawSums& other) noexcept;
};

struct UnitDraws {
  std::uint64_t unit = 0;
  DrawSums sums;
};

/// Of every unit first, first + stride, ... whose method rounds at random: the rounding is done again with the seeds
/// seed, seed + 1, ... `repeat` of them; the first must give the stored codes. Units that check_units refuses are left
/// out. Differences come back with those of the units.
[[nodiscard]] std::vector<UnitDraws> repeat_draws(const QuantizedFile& file, const Original& original,
                                                  std::uint64_t repeat, std::uint64_t first, std::uint64_t stride,
                                                  std::vector<Difference>& differences);

/// Per tensor: the table for people, and a difference where the mean error or the bias is beyond five sigma.
[[nodiscard]] std::string say_draws(const QuantizedFile& file, std::vector<UnitDraws> draws, std::uint64_t repeat,
                                    std::vector<std::string>& differences);

}  // namespace lmq::app
