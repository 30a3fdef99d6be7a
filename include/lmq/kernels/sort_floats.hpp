#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace lmq {

/// Buffers of sort_floats.
struct SortScratch {
  std::vector<std::int32_t> small_keys;  // few values: networks, of signed keys
  std::vector<std::int64_t> small_items;
  std::vector<std::uint32_t> keys, more_keys;
  std::vector<std::uint64_t> items, more_items;  // key and index, when there are weights
};

/// sorted[] = values in ascending order (-0 becomes +0), sorted_weights[] = their weights (both empty, or as many as
/// values), equal values in the order given. A network for few values, radix sort of keys for many: O(n), same bits
/// everywhere. Finite values.
void sort_floats(std::span<const float> values, std::span<const float> weights, std::span<float> sorted,
                 std::span<float> sorted_weights, SortScratch& scratch);

}  // namespace lmq
