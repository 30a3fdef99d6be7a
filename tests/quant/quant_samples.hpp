#pragma once
#include <map>

#include "../kernels/samples.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/quant/tally.hpp"
#include "lmq/quant/unit.hpp"

namespace samples {

using lmq::DType;
using lmq::Importance;

inline constexpr DType kAllTypes[] = {DType::bf16,    DType::f16,     DType::f32,         DType::f64,
                                      DType::f8_e4m3, DType::f8_e5m2, DType::f8_e4m3fnuz, DType::f8_e5m2fnuz};

inline lmq::TensorView view_of(DType type, std::span<const std::byte> bytes) {
  return {type, bytes, bytes.size() * 8 / lmq::bits(type)};
}

inline std::vector<float> widened(const lmq::TensorView& view) {
  std::vector<float> values(view.count);
  lmq::reference::widen(view.dtype, view.bytes, values);
  return values;
}

/// Importance values: some zero, some large.
inline std::vector<float> importance(std::size_t count, unsigned seed) {
  auto made = floats(count, 0, seed);
  for (float& weight : made) weight = std::fabs(weight);
  for (std::size_t i = 0; i < count; i += 7) made[i] = 0;
  for (std::size_t i = 3; i < count; i += 101) made[i] *= 1000;
  return made;
}

/// Sets the number of threads for a scope.
struct Threads {
  explicit Threads(std::size_t count) { lmq::set_thread_count(count); }
  ~Threads() { lmq::set_thread_count(0); }
};

}  // namespace samples
