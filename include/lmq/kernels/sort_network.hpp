#pragma once
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace lmq {

/// Sorts in place, ascending, by a bitonic network; count: a power of two, >= 16 (keys) and >= 8 (items).
struct SortNetwork {
  void (*keys)(std::int32_t* keys, std::size_t count) noexcept;
  void (*items)(std::int64_t* items, std::size_t count) noexcept;
  std::size_t few_keys, few_items;  ///< so many it sorts more quickly than a radix sort does
};

/// The widest this machine has and LMQ_ISA allows.
[[nodiscard]] const SortNetwork& sort_network() noexcept;
/// Baseline, then every wider set this machine has (for tests that compare them).
[[nodiscard]] std::size_t sort_network_sets(const SortNetwork** sets, std::size_t room) noexcept;

/// Room for a network: the least power of two that holds `count`, filled up with the greatest key.
template <class Key>
void fill_up(std::vector<Key>& keys, std::size_t count) {
  keys.resize(std::bit_ceil(std::max<std::size_t>(count, 16)));
  std::fill(keys.begin() + static_cast<std::ptrdiff_t>(count), keys.end(), std::numeric_limits<Key>::max());
}

}  // namespace lmq
