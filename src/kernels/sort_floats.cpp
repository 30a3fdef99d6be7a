#include "lmq/kernels/sort_floats.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>

#include "lmq/kernels/keys.hpp"
#include "lmq/kernels/sort_network.hpp"

namespace lmq {
namespace {

// Least digit first over bits [0, 32) of what `key` takes from an item; stable. Returns the buffer that holds the
// result.
template <unsigned kBits, class Item>
Item* radix_sort(Item* from, Item* to, std::size_t n) {
  constexpr unsigned kPasses = (32 + kBits - 1) / kBits;
  constexpr std::size_t kDigits = std::size_t{1} << kBits;
  static_assert(sizeof(Item) == 4 || sizeof(Item) == 8);
  constexpr unsigned kShift = sizeof(Item) == 8 ? 32 : 0;  // the key is the upper half of a wide item
  const auto digit = [](Item item, unsigned pass) {
    return static_cast<std::size_t>(static_cast<std::uint32_t>(item >> kShift) >> (pass * kBits)) & (kDigits - 1);
  };
  std::array<std::array<std::uint32_t, kDigits>, kPasses> count{};
  for (std::size_t i = 0; i < n; ++i)
    for (unsigned pass = 0; pass < kPasses; ++pass) ++count[pass][digit(from[i], pass)];
  for (unsigned pass = 0; pass < kPasses; ++pass) {
    auto& at = count[pass];
    if (at[digit(from[0], pass)] == n) continue;  // all the same: nothing to do
    std::uint32_t sum = 0;
    for (std::uint32_t& c : at) {
      const std::uint32_t here = c;
      c = sum;
      sum += here;
    }
    for (std::size_t i = 0; i < n; ++i) to[at[digit(from[i], pass)]++] = from[i];
    std::swap(from, to);
  }
  return from;
}

template <class Item>
[[nodiscard]] const Item* sorted_items(Item* here, Item* there, std::size_t n) {
  return n < 1024 ? radix_sort<8>(here, there, n) : radix_sort<11>(here, there, n);
}

// Pattern of a float (-0 as +0) to a signed number that ascends with it; the other way it is its own inverse.
std::int32_t signed_key(std::int32_t pattern) { return pattern ^ ((pattern >> 31) & 0x7FFFFFFF); }
std::int32_t signed_key(float value) { return signed_key(std::bit_cast<std::int32_t>(value + 0.0f)); }

void sort_few(std::span<const float> values, std::span<const float> weights, std::span<float> sorted,
              std::span<float> sorted_weights, SortScratch& scratch) {
  const std::size_t n = values.size();
  if (weights.empty()) {
    fill_up(scratch.small_keys, n);
    std::int32_t* const keys = scratch.small_keys.data();
    for (std::size_t i = 0; i < n; ++i) keys[i] = signed_key(values[i]);
    sort_network().keys(keys, scratch.small_keys.size());
    for (std::size_t i = 0; i < n; ++i) sorted[i] = std::bit_cast<float>(signed_key(keys[i]));
    return;
  }
  fill_up(scratch.small_items, n);
  std::int64_t* const items = scratch.small_items.data();
  for (std::size_t i = 0; i < n; ++i)
    items[i] = std::int64_t{signed_key(values[i])} * (std::int64_t{1} << 32) + static_cast<std::int64_t>(i);
  sort_network().items(items, scratch.small_items.size());
  for (std::size_t i = 0; i < n; ++i) {
    sorted[i] = std::bit_cast<float>(signed_key(static_cast<std::int32_t>(items[i] >> 32)));
    sorted_weights[i] = weights[static_cast<std::uint32_t>(items[i])];
  }
}

}  // namespace

void sort_floats(std::span<const float> values, std::span<const float> weights, std::span<float> sorted,
                 std::span<float> sorted_weights, SortScratch& scratch) {
  const std::size_t n = values.size();
  const SortNetwork& network = sort_network();
  if (n <= (weights.empty() ? network.few_keys : network.few_items))
    return sort_few(values, weights, sorted, sorted_weights, scratch);
  if (!weights.empty()) {
    scratch.items.resize(n), scratch.more_items.resize(n);
    for (std::size_t i = 0; i < n; ++i) scratch.items[i] = (std::uint64_t{float_key(values[i])} << 32) | i;
    const std::uint64_t* items = sorted_items(scratch.items.data(), scratch.more_items.data(), n);
    for (std::size_t i = 0; i < n; ++i) {
      sorted[i] = key_float(static_cast<std::uint32_t>(items[i] >> 32));
      sorted_weights[i] = weights[static_cast<std::uint32_t>(items[i])];
    }
    return;
  }
  scratch.keys.resize(n), scratch.more_keys.resize(n);
  for (std::size_t i = 0; i < n; ++i) scratch.keys[i] = float_key(values[i]);
  const std::uint32_t* keys = sorted_items(scratch.keys.data(), scratch.more_keys.data(), n);
  for (std::size_t i = 0; i < n; ++i) sorted[i] = key_float(keys[i]);
}

}  // namespace lmq
