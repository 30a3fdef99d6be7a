#include "lmq/kernels/huffman.hpp"

#include <algorithm>
#include <array>

namespace lmq {
namespace {

constexpr std::size_t kMaxSymbols = 256, kMaxItems = 2 * kMaxSymbols;

/// Symbols with a count, the rarest first (among equals the first), and what a list of packages took from where.
struct Symbols {
  std::array<std::uint16_t, kMaxSymbols> at{};
  std::array<std::uint64_t, kMaxSymbols> count{};
  std::size_t size = 0;
  explicit Symbols(std::span<const std::uint64_t> counts) noexcept {
    for (std::size_t s = 0; s < counts.size(); ++s)
      if (counts[s] > 0) at[size++] = static_cast<std::uint16_t>(s);
    std::sort(at.begin(), at.begin() + static_cast<std::ptrdiff_t>(size),
              [&](std::uint16_t x, std::uint16_t y) { return counts[x] != counts[y] ? counts[x] < counts[y] : x < y; });
    for (std::size_t k = 0; k < size; ++k) count[k] = counts[at[k]];
  }
};

}  // namespace

// Package-merge: list d holds, by ascending cost, each symbol and each pair of neighbours of list d - 1; a symbol is as
// long as the number of lists among whose cheapest items (2n - 2 of the last, and what their packages open) it is.
void huffman_lengths(std::span<const std::uint64_t> counts, unsigned most_bits,
                     std::span<std::uint8_t> lengths) noexcept {
  std::ranges::fill(lengths, std::uint8_t{0});
  const Symbols symbols(counts);
  const std::size_t n = symbols.size;
  if (n == 1) lengths[symbols.at[0]] = 1;
  if (n < 2) return;
  std::array<std::array<bool, kMaxItems>, 32> is_symbol;  // of the items of each list
  std::array<std::uint64_t, kMaxItems> cost{}, next{};
  std::size_t items = 0;
  for (unsigned d = 0; d < most_bits; ++d) {
    const std::size_t packages = items / 2;
    std::size_t s = 0, p = 0, k = 0;
    while (s < n || p < packages) {
      const std::uint64_t pair = p < packages ? cost[2 * p] + cost[2 * p + 1] : 0;
      const bool symbol = p == packages || (s < n && symbols.count[s] <= pair);
      is_symbol[d][k] = symbol;
      next[k++] = symbol ? symbols.count[s++] : (++p, pair);
    }
    std::swap(cost, next);
    items = k;
  }
  std::size_t take = 2 * n - 2;
  for (unsigned d = most_bits; d-- > 0 && take > 0;) {
    std::size_t taken = 0;
    for (std::size_t k = 0; k < take; ++k)
      if (is_symbol[d][k]) ++lengths[symbols.at[taken++]];
    take = 2 * (take - taken);
  }
}

}  // namespace lmq
