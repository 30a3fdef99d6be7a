#include "lmq/kernels/sort_network.hpp"

#include "vector_sets.hpp"

#pragma GCC diagnostic ignored "-Wpsabi"  // vectors are passed between inlined functions only

namespace lmq {
namespace {

/// Vectors of kBytes of signed keys: as wide as the registers, since the compiler takes wider ones apart lane by lane.
template <class Key, std::size_t kBytes>
struct Vectors;

#define LMQ_VECTORS(Key, Bytes, ...)                                                        \
  template <>                                                                               \
  struct Vectors<Key, Bytes> {                                                              \
    using V = Key __attribute__((vector_size(Bytes)));                                      \
    using Loose = Key __attribute__((vector_size(Bytes), aligned(sizeof(Key)), may_alias)); \
    static constexpr V kLane = {__VA_ARGS__};                                               \
    static constexpr std::size_t kCount = Bytes / sizeof(Key);                              \
  }
LMQ_VECTORS(std::int32_t, 16, 0, 1, 2, 3);
LMQ_VECTORS(std::int64_t, 16, 0, 1);
LMQ_VECTORS(std::int32_t, 32, 0, 1, 2, 3, 4, 5, 6, 7);
LMQ_VECTORS(std::int64_t, 32, 0, 1, 2, 3);
LMQ_VECTORS(std::int32_t, 64, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
LMQ_VECTORS(std::int64_t, 64, 0, 1, 2, 3, 4, 5, 6, 7);

// Bitonic sorting network (Batcher 1968) whose merges read the second run backwards, so that every exchange puts the
// lesser first.
template <class Key, std::size_t kBytes>
struct Network {
  using Of = Vectors<Key, kBytes>;
  using V = typename Of::V;
  using Loose = typename Of::Loose;
  static constexpr std::size_t kCount = Of::kCount;
  static LMQ_INLINE V load(const Key* keys, std::size_t vector) {
    return *reinterpret_cast<const Loose*>(keys + vector * kCount);
  }
  static LMQ_INLINE void store(Key* keys, std::size_t vector, V v) {
    *reinterpret_cast<Loose*>(keys + vector * kCount) = v;
  }

  // The least of each lane and its partner where `low` is set, the greatest elsewhere.
  static LMQ_INLINE V exchange(V v, V partner, V low) {
    const V other = __builtin_shuffle(v, partner);
    const V less = v < other ? v : other, more = v < other ? other : v;
    return low ? less : more;
  }
  // Lanes at kDistance, half of it, ...: a bitonic run becomes a sorted one.
  template <std::size_t kDistance>
  static LMQ_INLINE V cleaned(V v) {
    if constexpr (kDistance == 0) {
      return v;
    } else {
      constexpr auto distance = static_cast<Key>(kDistance);
      return cleaned<kDistance / 2>(exchange(v, Of::kLane ^ distance, (Of::kLane & distance) == 0));
    }
  }
  // Runs of kRun sorted lanes become runs of twice that, up to the whole vector.
  template <std::size_t kRun>
  static LMQ_INLINE V sorted_lanes(V v) {
    if constexpr (kRun == kCount) {
      return v;
    } else {
      constexpr auto run = static_cast<Key>(kRun), mirror = static_cast<Key>(2 * kRun - 1);
      v = exchange(v, Of::kLane ^ mirror, (Of::kLane & run) == 0);
      return sorted_lanes<2 * kRun>(cleaned<kRun / 2>(v));
    }
  }
  // Two sorted runs of `half` vectors each become two bitonic ones, the lesser first.
  static LMQ_INLINE void fold(Key* keys, std::size_t first, std::size_t half) {
    constexpr V backwards = Of::kLane ^ static_cast<Key>(kCount - 1);
    for (std::size_t i = 0; i < half; ++i) {
      const std::size_t mirror = first + 2 * half - 1 - i;
      const V a = load(keys, first + i), b = __builtin_shuffle(load(keys, mirror), backwards);
      store(keys, first + i, a < b ? a : b);
      store(keys, mirror, __builtin_shuffle(a < b ? b : a, backwards));
    }
  }
  static LMQ_INLINE void halve(Key* keys, std::size_t first, std::size_t distance) {
    for (std::size_t i = first; i < first + distance; ++i) {
      const V a = load(keys, i), b = load(keys, i + distance);
      store(keys, i, a < b ? a : b);
      store(keys, i + distance, a < b ? b : a);
    }
  }
  static LMQ_INLINE void sort(Key* keys, std::size_t count) {
    const std::size_t vectors = count / kCount;
    for (std::size_t i = 0; i < vectors; ++i) store(keys, i, sorted_lanes<1>(load(keys, i)));
    for (std::size_t run = 2; run <= vectors; run *= 2) {
      for (std::size_t first = 0; first < vectors; first += run) fold(keys, first, run / 2);
      for (std::size_t distance = run / 4; distance > 0; distance /= 2)
        for (std::size_t first = 0; first < vectors; first += 2 * distance) halve(keys, first, distance);
      for (std::size_t i = 0; i < vectors; ++i) store(keys, i, cleaned<kCount / 2>(load(keys, i)));
    }
  }
};

#define LMQ_SORT_NETWORK(name, bytes, few_keys, few_items, attribute)                 \
  attribute void sort_keys_##name(std::int32_t* keys, std::size_t count) noexcept {   \
    Network<std::int32_t, bytes>::sort(keys, count);                                  \
  }                                                                                   \
  attribute void sort_items_##name(std::int64_t* items, std::size_t count) noexcept { \
    Network<std::int64_t, bytes>::sort(items, count);                                 \
  }                                                                                   \
  constexpr SortNetwork network_##name { sort_keys_##name, sort_items_##name, few_keys, few_items }

LMQ_SORT_NETWORK(baseline, 16, 256, 64, LMQ_TARGET_BASELINE);
#if defined(__x86_64__)
LMQ_SORT_NETWORK(avx2, 32, 2048, 1024, LMQ_TARGET_AVX2);
LMQ_SORT_NETWORK(avx512, 64, 2048, 1024, LMQ_TARGET_AVX512);
constexpr VectorSets<SortNetwork> kSets{&network_baseline, &network_avx2, &network_avx512};
#else
constexpr VectorSets<SortNetwork> kSets{&network_baseline};
#endif

}  // namespace

std::size_t sort_network_sets(const SortNetwork** sets, std::size_t room) noexcept { return kSets.list(sets, room); }

const SortNetwork& sort_network() noexcept {
  static const SortNetwork& chosen = kSets.best();
  return chosen;
}

}  // namespace lmq
