#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "lmq/quant/value_histogram.hpp"

namespace lmq {

/// What counting a window gives: a histogram's content.
struct Counted {
  std::vector<ValueHistogram::Bin> bins;
  std::uint64_t nonfinite = 0;
  std::uint32_t minimum_key = 0xFFFFFFFFu, maximum_key = 0;
};

/// Everything, at the first resolution.
[[nodiscard]] Counted count_all(const TensorView& view, const Importance& importance, bool layered);
/// Only what lies in the ranges (not empty), at their resolution.
[[nodiscard]] Counted count_ranges(const TensorView& view, const Importance& importance,
                                   std::span<const KeyRange> ranges, bool layered);
/// Adds the bins of `other` to `bins`; both ascending by layer, then key. Errc::internal when two bins overlap without
/// being the same.
void merge_bins(std::vector<ValueHistogram::Bin>& bins, std::span<const ValueHistogram::Bin> other);

}  // namespace lmq
