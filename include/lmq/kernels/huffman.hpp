#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

namespace lmq {

/// Lengths of an optimal prefix code whose words have at most `most_bits` bits: minimises sum counts[s] * lengths[s].
/// counts   [1..256] a symbol of count 0 has no word, length 0; a single symbol has one of 1 bit
/// most_bits  1..32, no fewer than log2 of the symbols with a word
/// The result is a function of the arguments: among equal counts, earlier symbols have no shorter words than later
/// ones. Cost O(most_bits * n log n). Source: Larmore & Hirschberg 1990 (package-merge).
void huffman_lengths(std::span<const std::uint64_t> counts, unsigned most_bits,
                     std::span<std::uint8_t> lengths) noexcept;

}  // namespace lmq
