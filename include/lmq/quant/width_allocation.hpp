#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace lmq {

/// How a size is shared out among the scopes of a budget.
enum class Allocation : std::uint8_t {
  slope,       ///< one slope for all, any numbers of levels: no widths
  lagrangian,  ///< widths: one slope for all, then what is left by the best gain that fits; never worse than uniform
  exact,       ///< widths of least loss
  uniform,     ///< one width for all, the widest that fits
  dropbits,    ///< widths by gates that a price of bytes closes (DropBits), then what is left as in lagrangian
};

/// What a width of whole bits costs and leaves.
struct WidthPoint {
  std::size_t width = 0;
  double bytes = 0;  ///< a whole number, so that sums are exact
  double loss = 0;   ///< comparable between scopes
};
/// Of one scope, by ascending width; not empty. Bytes and losses may come in any order.
using WidthTable = std::vector<WidthPoint>;

struct WidthChoice {
  std::vector<std::size_t> points;  ///< [tables] index into each
  double bytes = 0, loss = 0;
  bool proven = false;  ///< of exact: nothing that fits has less loss
};

/// Points of all tables that together take at most `room` bytes; nothing when the smallest do not. Deterministic, in
/// doubles by + - * / alone.
/// lagrangian  steps of the lower convex hulls by descending slope. Source: Shoham & Gersho 1988, Efficient bit
///             allocation for an arbitrary set of quantizers, section III
/// exact       dynamic programme over (bytes, loss) pairs that no other beats, without those that the Lagrangian bound
///             rules out; up to 2^16 pairs are kept at a time. When there are more, the best of each of as many slices
///             of bytes stay and `proven` is false
/// dropbits    hard concrete gates nested from width to width, Adam on the gates' table losses + price * expected bytes,
///             the price bisected. Source: Lee et al. 2021 (arXiv 2109.02100), section 3.2; Louizos et al. 2018
/// Cost        lagrangian O(n log n); exact: 300 scopes of 8 widths some milliseconds; dropbits 1 ms a scope
[[nodiscard]] std::optional<WidthChoice> allocate_widths(Allocation how, std::span<const WidthTable> tables,
                                                         double room);

}  // namespace lmq
