#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lmq/base/quantized_unit.hpp"

namespace lmq {

/// Counts of 16-bit patterns, kept between windows: memory that is already there is the cheap kind.
/// Not for two threads at once; counts are integers, so any order of windows gives the same sums.
class Histogram16 {
 public:
  Histogram16();
  /// Adds count patterns. About 0.4 ns per pattern on one core for weights of a model, 1 ns when all are equal.
  void add(const std::byte* patterns, std::size_t count);
  /// totals[p] += how often pattern p was added; starts again from zero. totals: [65536].
  void drain(std::span<std::uint64_t> totals);

 private:
  static constexpr std::size_t kTables = 4;  // neighbouring equal weights go to different tables
  std::vector<std::uint32_t> tables_;        // [kTables][65536]
  std::uint64_t pending_ = 0;                // added since the last drain into carry_ or out
  std::vector<std::uint64_t> carry_;         // only when more than 2^32 - 1 are added
};

/// counts[p] += occurrences of byte p. counts: [256]. About 0.3 ns per byte.
void add_histogram8(const std::byte* bytes, std::size_t count, std::span<std::uint64_t> counts) noexcept;

/// Exact sums of floats by the upper 16 bits of their key: how many, and of offset (key's lower 16 bits) and its
/// square.
struct Moments {
  std::uint64_t count = 0;
  std::uint64_t first = 0;
  unsigned __int128 second = 0;
};
/// Least and greatest key of finite floats; so when there are none.
struct KeyExtremes {
  std::uint32_t lowest = 0xFFFFFFFFu, highest = 0;
};
class MomentHistogram {
 public:
  MomentHistogram();
  /// Adds floats that lie at any address; those that are not finite are added too (bins of exponent 255), but are no
  /// extremes. About 0.8 ns each.
  void add(const std::byte* floats, std::size_t count);
  /// totals[key >> 16] += what was added, whose extremes come back; starts again from zero. totals: [65536].
  [[nodiscard]] KeyExtremes drain(std::span<Moments> totals);

  struct Cell {
    std::uint64_t packed = 0;  ///< count in the upper 24 bits, sum of offsets in the lower 40
    std::uint64_t second = 0;  ///< sum of offset^2
  };

 private:
  void spill();
  std::vector<Cell> cells_;     // [65536]
  std::vector<Moments> carry_;  // only when more than 2^24 - 1 are added
  KeyExtremes extremes_;
  std::uint64_t pending_ = 0;
};

namespace reference {
void add_histogram16(const std::byte* patterns, std::size_t count, std::span<std::uint64_t> counts) noexcept;
void add_histogram8(const std::byte* bytes, std::size_t count, std::span<std::uint64_t> counts) noexcept;
void add_moments(const std::byte* floats, std::size_t count, std::span<Moments> totals) noexcept;
}  // namespace reference

}  // namespace lmq
