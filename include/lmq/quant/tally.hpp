#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lmq/base/tensor.hpp"
#include "lmq/quant/group.hpp"
#include "lmq/quant/importance.hpp"

namespace lmq {

/// Exact integer statistics of weights by value: what ranks add up. Merging is associative and commutative, so the sum
/// does not depend on who measured what. Bins lie in the domain of ordered_key.
/// 16-bit and 8-bit sources give one bin per distinct value at once; F32 (and F64, rounded to F32) starts with bins of
/// 2^16 keys and is refined where the solver asks.
class Tally {
 public:
  struct Bin {
    std::uint32_t key = 0;           ///< first key; the bin holds keys key .. key + 2^span_bits - 1
    std::uint32_t span_bits = 0;
    std::uint64_t count = 0;
    unsigned __int128 mass = 0;      ///< sum of importance steps (== count when unweighted)
    unsigned __int128 first = 0;     ///< sum of importance steps * offset, offset = key of the value - key
    unsigned __int128 second = 0;    ///< sum of importance steps * offset^2
  };

  /// Counts a window. With `ranges` empty: everything, at the first resolution; else only keys inside the ranges, at
  /// their resolution. Non-finite values are left out and counted in nonfinite(). Parallel inside; O(count).
  [[nodiscard]] static Tally of(const TensorView& view, const Importance& importance, std::span<const KeyRange> ranges);

  void merge(const Tally& other);
  /// Replaces the bins inside `ranges` by those of `finer` (measured with the same ranges).
  void refine(const Tally& finer, std::span<const KeyRange> ranges);
  /// The statistics as a solver wants them. `quantum` turns steps back into importance.
  [[nodiscard]] Group group(double quantum) const;

  [[nodiscard]] std::span<const Bin> bins() const noexcept { return bins_; }
  [[nodiscard]] std::uint64_t count() const noexcept;
  [[nodiscard]] std::uint64_t nonfinite() const noexcept { return nonfinite_; }

  [[nodiscard]] std::vector<std::byte> to_bytes() const;
  [[nodiscard]] static Tally from_bytes(std::span<const std::byte> bytes, const std::string& source);

 private:
  std::vector<Bin> bins_;            // ascending by key, disjoint
  std::uint64_t nonfinite_ = 0;
  std::uint32_t minimum_key_ = 0xFFFFFFFFu, maximum_key_ = 0;
};

}  // namespace lmq
