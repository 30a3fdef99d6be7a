#pragma once
#include <cstddef>
#include <span>

#include "lmq/base/dtype.hpp"
#include "lmq/base/quantized_unit.hpp"

namespace lmq {

/// Weights of a block of error sums: inside a block, 16 lanes of double (weight i in lane i % 16), added in order at
/// its end; blocks are added in order. So the bits depend on the values alone.
inline constexpr std::size_t kErrorBlock = 4096;

struct ErrorSums {
  double squared = 0;          ///< sum of (weight - level)^2, differences and squares in double
  double weighted = 0;         ///< sum of importance * (weight - level)^2; equals squared without importance
  double energy = 0;           ///< sum of weight^2
  double largest = 0;          ///< max of |weight - level|
  double weighted_energy = 0;  ///< sum of importance * weight^2; equals energy without importance

  /// Adds the next block.
  void append(const ErrorSums& block) noexcept {
    squared += block.squared, weighted += block.weighted, energy += block.energy;
    weighted_energy += block.weighted_energy;
    largest = largest < block.largest ? block.largest : largest;
  }
};

/// Levels for the error kernels: padded, so that any code reads a level.
struct LevelTable {
  alignas(64) float levels[256];
  std::size_t count = 0;
  LevelTable() noexcept : levels{} {}
  explicit LevelTable(std::span<const float> from) noexcept;
};

/// Errors of one block: weights.size() == count * bits(type) / 8, count = codes.size() <= kErrorBlock; every code is
/// less than the number of levels; importance is empty or has a value for each weight. About 0.3 ns per weight.
[[nodiscard]] ErrorSums error_of_codes(DType type, std::span<const std::byte> weights, std::span<const Code> codes,
                                       const LevelTable& levels, std::span<const float> importance) noexcept;
/// The same of values in hand; the same bits when they are the levels of the codes.
[[nodiscard]] ErrorSums error_of_values(DType type, std::span<const std::byte> weights, std::span<const float> values,
                                        std::span<const float> importance) noexcept;

namespace reference {
[[nodiscard]] ErrorSums error_of_values(DType type, std::span<const std::byte> weights, std::span<const float> values,
                                        std::span<const float> importance) noexcept;
}  // namespace reference

}  // namespace lmq
