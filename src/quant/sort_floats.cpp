#include "sort_floats.hpp"

#include <algorithm>
#include <array>
#include <cstddef>

#include "lmq/kernels/keys.hpp"

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
  if (n <= 48) {
    std::sort(here, here + n);
    return here;
  }
  return n < 1024 ? radix_sort<8>(here, there, n) : radix_sort<11>(here, there, n);
}

}  // namespace

void sort_floats(std::span<const float> values, std::span<const float> weights, std::span<float> sorted,
                 std::span<float> sorted_weights, SortScratch& scratch) {
  const std::size_t n = values.size();
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
