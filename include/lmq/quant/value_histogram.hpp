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
/// does not depend on who measured what. Bins lie in the domain of ordered_key, at multiples of their width: all values
/// of a bin have one sign and one exponent, so value = first value + offset * (one unit in the last place), exactly.
/// 16-bit and 8-bit sources give one bin per distinct value at once; F32 (and F64, rounded to F32) starts with bins of
/// 2^16 keys and is refined where the solver asks.
class ValueHistogram {
 public:
  struct Bin {
    std::uint32_t key = 0;         ///< first key, a multiple of 2^span_bits
    std::uint16_t span_bits = 0;   ///< the bin holds keys key .. key + 2^span_bits - 1; at most 16
    std::uint16_t layer = 0;       ///< of importance (layer_of); 0 for all where layers are not counted apart
    std::uint64_t count = 0;       ///< > 0
    unsigned __int128 mass = 0;    ///< sum of importance steps (== count when unweighted)
    unsigned __int128 first = 0;   ///< sum of importance steps * offset, offset = key of the value - key
    unsigned __int128 second = 0;  ///< sum of importance steps * offset^2
    friend bool operator==(const Bin&, const Bin&) = default;
  };

  /// Counts a window. With `ranges` empty: everything, at the first resolution; else only keys inside the ranges
  /// (ascending, disjoint), at their resolution. Non-finite values are left out; without ranges they are counted in
  /// nonfinite(). layered: each layer of importance by itself. Parallel inside; O(count): about 0.5 ns per BF16 weight
  /// and core, 1.2 ns per F32 weight.
  [[nodiscard]] static ValueHistogram of(const TensorView& view, const Importance& importance,
                                         std::span<const KeyRange> ranges, bool layered = false);

  void merge(const ValueHistogram& other);
  /// Replaces the bins inside `ranges` by those of `finer` (measured with the same ranges, over the same weights). A
  /// range covers every value of each bin that it touches.
  void refine(const ValueHistogram& finer, std::span<const KeyRange> ranges);
  /// The statistics as a solver wants them. `quantum` turns steps back into importance. A bin all of whose weights have
  /// one value becomes that value (low == high). Layers that were counted apart are in the group's layers, too.
  [[nodiscard]] Group group(double quantum) const;

  [[nodiscard]] std::span<const Bin> bins() const noexcept { return bins_; }
  [[nodiscard]] std::uint64_t count() const noexcept;
  [[nodiscard]] std::uint64_t nonfinite() const noexcept { return nonfinite_; }

  /// For messages between ranks: about 12 bytes a bin of an unweighted 16-bit histogram, 25 of an F32 one.
  [[nodiscard]] std::vector<std::byte> to_bytes() const;
  /// Errc::malformed names `source` when the bytes are no histogram (any byte string is handled).
  [[nodiscard]] static ValueHistogram from_bytes(std::span<const std::byte> bytes, const std::string& source);

  friend bool operator==(const ValueHistogram&, const ValueHistogram&) = default;

 private:
  std::vector<Bin> bins_;  // ascending by layer, then key; those of a layer disjoint
  std::uint64_t nonfinite_ = 0;
  std::uint32_t minimum_key_ = 0xFFFFFFFFu, maximum_key_ = 0;  // of all counted values (so when there are none); with
                                                               // ranges of all keys of the bins
};

/// Bins that statistics of weights of a type have in the end, for estimates: 8 bits at most 256; BF16 about 7,200
/// distinct values in 1e10 normal weights, F16 eight times as many; wider types after refinement for that many levels.
[[nodiscard]] std::uint64_t expected_bins(DType dtype, std::size_t levels) noexcept;

}  // namespace lmq
