#include "lmq/kernels/binary_scan.hpp"

#include <limits>

#include "vector_sets.hpp"

#pragma GCC diagnostic ignored "-Wpsabi"  // vectors are passed between inlined functions only

namespace lmq {
namespace {

using Floats = float __attribute__((vector_size(kLanes * sizeof(float))));
using LooseFloats = float __attribute__((vector_size(kLanes * sizeof(float)), aligned(sizeof(float)), may_alias));

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

#define LMQ_BINARY_SCANS(name, attribute)                                                                        \
  attribute Split two_means_##name(const double* mass, const double* sum, std::size_t points) noexcept {         \
    return two_means_body(mass, sum, points);                                                                    \
  }                                                                                                              \
  attribute Split top_mean_##name(const double* mass, const double* sum, std::size_t points) noexcept {          \
    return top_mean_body(mass, sum, points);                                                                     \
  }                                                                                                              \
  attribute double magnitude_sum_##name(const float* values, const float* weights, std::size_t count) noexcept { \
    return magnitude_sum_body(values, weights, count);                                                           \
  }                                                                                                              \
  constexpr BinaryScans scans_##name { two_means_##name, top_mean_##name, magnitude_sum_##name }

LMQ_BINARY_SCANS(baseline, LMQ_TARGET_BASELINE);
#if defined(__x86_64__)
LMQ_BINARY_SCANS(avx2, LMQ_TARGET_AVX2);
LMQ_BINARY_SCANS(avx512, LMQ_TARGET_AVX512);
constexpr VectorSets<BinaryScans> kSets{&scans_baseline, &scans_avx2, &scans_avx512};
#else
constexpr VectorSets<BinaryScans> kSets{&scans_baseline};
#endif

}  // namespace

std::size_t binary_scan_sets(const BinaryScans** sets, std::size_t room) noexcept { return kSets.list(sets, room); }

const BinaryScans& binary_scans() noexcept {
  static const BinaryScans& chosen = kSets.best();
  return chosen;
}

}  // namespace lmq
