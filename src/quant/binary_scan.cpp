#include "binary_scan.hpp"

#include <array>
#include <limits>

#include "lmq/kernels/isa.hpp"

#pragma GCC diagnostic ignored "-Wpsabi"  // vectors are passed between inlined functions only

namespace lmq {
namespace {

#define LMQ_INLINE inline __attribute__((always_inline))

constexpr std::size_t kLanes = 8;
using Doubles = double __attribute__((vector_size(kLanes * sizeof(double))));
using LooseDoubles = double __attribute__((vector_size(kLanes * sizeof(double)), aligned(sizeof(double)), may_alias));
using Longs = std::int64_t __attribute__((vector_size(kLanes * sizeof(std::int64_t))));
using Floats = float __attribute__((vector_size(kLanes * sizeof(float))));
using LooseFloats = float __attribute__((vector_size(kLanes * sizeof(float)), aligned(sizeof(float)), may_alias));

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

LMQ_INLINE void keep_better(Split& best, double gain, std::size_t index) {
  if (gain > best.gain) best = {gain, index};
}

// The greatest of the lanes, the smallest index among equals.
LMQ_INLINE Split best_lane(Doubles gains, Longs indices) {
  Split best{gains[0], static_cast<std::size_t>(indices[0])};
  for (std::size_t lane = 1; lane < kLanes; ++lane) {
    const auto index = static_cast<std::size_t>(indices[lane]);
    if (gains[lane] > best.gain || (gains[lane] == best.gain && index < best.index)) best = {gains[lane], index};
  }
  return best;
}

// Greatest gain(i) over [first, last), the smallest index among equals; vectors where there are enough.
template <class Gain>
LMQ_INLINE Split greatest(std::size_t first, std::size_t last, Split start, const Gain& gain) {
  Split best = start;
  std::size_t i = first;
  if (last - first >= kLanes) {
    Doubles most = Doubles{} - std::numeric_limits<double>::infinity();
    Longs most_at = {}, at = {0, 1, 2, 3, 4, 5, 6, 7};
    at += static_cast<std::int64_t>(first);
    for (; i + kLanes <= last; i += kLanes) {
      const Doubles here = gain.template at<Doubles>(i);
      const Longs better = here > most;
      most = better ? here : most;
      most_at = better ? at : most_at;
      at += static_cast<std::int64_t>(kLanes);
    }
    const Split found = best_lane(most, most_at);
    keep_better(best, found.gain, found.index);
  }
  for (; i < last; ++i) keep_better(best, gain.template at<double>(i), i);
  return best;
}

template <class T>
LMQ_INLINE T read(const double* array, std::size_t i) {
  if constexpr (sizeof(T) == sizeof(double))
    return array[i];
  else
    return *reinterpret_cast<const LooseDoubles*>(array + i);
}

struct TwoMeansGain {
  const double *mass, *sum;
  double whole, mean;
  template <class T>
  LMQ_INLINE T at(std::size_t i) const {
    const T a = read<T>(mass, i), d = read<T>(sum, i) - a * mean, rest = a * (whole - a);
    const T gain = d * d / rest;
    return rest > 0 ? gain : T{} - 1.0;
  }
};

struct TopMeanGain {
  const double *mass, *sum;
  double whole, total;
  template <class T>
  LMQ_INLINE T at(std::size_t i) const {
    const T d = total - read<T>(sum, i), rest = whole - read<T>(mass, i);
    const T gain = d * d / rest;
    return rest > 0 ? gain : T{} - 1.0;
  }
};

LMQ_INLINE Split two_means_body(const double* mass, const double* sum, std::size_t points) {
  const double whole = mass[points], mean = sum[points] / whole;
  return greatest(1, points, {0, 0}, TwoMeansGain{mass, sum, whole, mean});
}

LMQ_INLINE Split top_mean_body(const double* mass, const double* sum, std::size_t points) {
  return greatest(0, points, {-1, 0}, TopMeanGain{mass, sum, mass[points], sum[points]});
}

LMQ_INLINE Doubles magnitudes(const float* values, const float* weights) {
  Doubles x = __builtin_convertvector(Floats(*reinterpret_cast<const LooseFloats*>(values)), Doubles);
  x = x < 0 ? -x : x;
  if (weights == nullptr) return x;
  return x * __builtin_convertvector(Floats(*reinterpret_cast<const LooseFloats*>(weights)), Doubles);
}

LMQ_INLINE double magnitude_sum_body(const float* values, const float* weights, std::size_t count) {
  Doubles low{}, high{};
  std::size_t i = 0;
  for (; i + 2 * kLanes <= count; i += 2 * kLanes) {
    low += magnitudes(values + i, weights == nullptr ? nullptr : weights + i);
    high += magnitudes(values + i + kLanes, weights == nullptr ? nullptr : weights + i + kLanes);
  }
  for (std::size_t lane = 0; i < count; ++i, ++lane) {
    const double x = values[i] < 0 ? -double{values[i]} : double{values[i]};
    const double add = weights == nullptr ? x : x * double{weights[i]};
    if (lane < kLanes)
      low[lane] += add;
    else
      high[lane - kLanes] += add;
  }
  const Doubles v = low + high;
  return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

#define LMQ_BINARY_SCANS(name, bytes, attribute)                                                                 \
  attribute void sort_keys_##name(std::int32_t* keys, std::size_t count) noexcept {                              \
    Network<std::int32_t, bytes>::sort(keys, count);                                                             \
  }                                                                                                              \
  attribute void sort_items_##name(std::int64_t* items, std::size_t count) noexcept {                            \
    Network<std::int64_t, bytes>::sort(items, count);                                                            \
  }                                                                                                              \
  attribute Split two_means_##name(const double* mass, const double* sum, std::size_t points) noexcept {         \
    return two_means_body(mass, sum, points);                                                                    \
  }                                                                                                              \
  attribute Split top_mean_##name(const double* mass, const double* sum, std::size_t points) noexcept {          \
    return top_mean_body(mass, sum, points);                                                                     \
  }                                                                                                              \
  attribute double magnitude_sum_##name(const float* values, const float* weights, std::size_t count) noexcept { \
    return magnitude_sum_body(values, weights, count);                                                           \
  }                                                                                                              \
  constexpr BinaryScans scans_##name {                                                                           \
    sort_keys_##name, sort_items_##name, two_means_##name, top_mean_##name, magnitude_sum_##name                 \
  }

LMQ_BINARY_SCANS(baseline, 16, );
#if defined(__x86_64__)
LMQ_BINARY_SCANS(avx2, 32, __attribute__((target("avx2"))));
LMQ_BINARY_SCANS(avx512, 64, __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,prefer-vector-width=512"))));
#endif

const BinaryScans& choose() noexcept {
  if (baseline_forced()) return scans_baseline;
  std::array<const BinaryScans*, 4> sets{};
  return *sets[binary_scan_sets(sets.data(), sets.size()) - 1];
}

}  // namespace

std::size_t binary_scan_sets(const BinaryScans** sets, std::size_t room) noexcept {
  std::size_t count = 0;
  const auto add = [&](const BinaryScans& set) {
    if (count < room) sets[count++] = &set;
  };
  add(scans_baseline);
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) add(scans_avx2);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw"))
    add(scans_avx512);
#endif
  return count;
}

const BinaryScans& binary_scans() noexcept {
  static const BinaryScans& chosen = choose();
  return chosen;
}

}  // namespace lmq
