#pragma once
#include <algorithm>
#include <catch2/catch.hpp>

#include "lmq/plan/plan.hpp"

namespace lmq::plan_test {

using Shape = std::vector<std::uint64_t>;

inline TensorInfo tensor(std::string name, Shape shape, DType dtype = DType::bf16) {
  TensorInfo info;
  info.name = std::move(name);
  info.dtype = dtype;
  info.shape = std::move(shape);
  info.bytes = (info.count() * bits(dtype) + 7) / 8;
  return info;
}

inline Plan plan_of(const std::vector<TensorInfo>& tensors, const Recipe& recipe = default_recipe()) {
  return make_plan(tensors, "digest", recipe, {});
}

inline Recipe all(Granularity granularity) {
  return {.rules = {{.granularity = granularity}}, .min_elements = 0, .keep_vectors = false};
}

inline std::uint64_t chunk_count(const Shape& shape, const Shape& chunk) {
  std::uint64_t count = 1;
  for (std::size_t d = 0; d < shape.size(); ++d) count *= (shape[d] + chunk[d] - 1) / chunk[d];
  return count;
}

/// The laws every plan obeys; false instead of REQUIRE in loops keeps thousands of shapes quick.
inline void check_laws(const std::vector<TensorInfo>& tensors, const Plan& plan) {
  REQUIRE(plan.tensors.size() == tensors.size());
  std::uint64_t next_unit = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const TensorInfo& info = tensors[i];
    const TensorPlan& planned = plan.tensors[i];
    bool ok = planned.tensor == i && planned.first_unit == next_unit && planned.rows * planned.cols == info.count();
    const bool quantized = planned.treatment == Treatment::quantize;
    ok = ok && quantized == planned.reason.empty() && quantized == !planned.chunk.empty();
    std::uint64_t next = 0;
    for (std::uint64_t u = planned.first_unit; u < planned.first_unit + planned.units; ++u) {
      const WorkUnit& unit = plan.units.at(u);
      ok = ok && unit.tensor == i && unit.begin == next && unit.count > 0 && unit.seconds > 0;
      next += unit.count;
      if (planned.treatment == Treatment::keep)
        ok = ok && unit.begin * bits(info.dtype) % 8 == 0 && unit.count * bits(info.dtype) <= 8 * kKeepUnitBytes;
      if (quantized && planned.spec.granularity >= Granularity::row)
        ok = ok && unit.count % planned.cols == 0 && (unit.count <= kUnitWeights || unit.count == planned.cols);
      else if (quantized)
        ok = ok && unit.count <= kUnitWeights;
    }
    ok = ok && next == (planned.treatment == Treatment::fold ? 0 : info.count());
    if (quantized) {
      std::uint64_t chunk_elements = 1;
      for (std::size_t d = 0; d < info.shape.size(); ++d) {
        chunk_elements *= planned.chunk[d];
        ok = ok && planned.chunk[d] >= 1 && planned.chunk[d] <= info.shape[d];
      }
      ok = ok && planned.units == chunk_count(info.shape, planned.chunk) && chunk_elements <= (std::uint64_t{1} << 30);
      ok = ok && chunk_elements == plan.units[planned.first_unit].count;
    }
    next_unit += planned.units;
    CAPTURE(info.name, info.shape, planned.chunk);
    if (!ok) FAIL("tensor " << i << " breaks a law");
  }
  REQUIRE(next_unit == plan.units.size());
}

}  // namespace lmq::plan_test
