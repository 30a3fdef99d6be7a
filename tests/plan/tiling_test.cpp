#include <catch2/catch.hpp>
#include <random>

#include "plan_laws.hpp"

using namespace lmq;
using namespace lmq::plan_test;

namespace {

/// Elements of chunk number `index` of the grid in row-major chunk order, by the definition of chunked storage: each
/// chunk covers [c * chunk, min((c + 1) * chunk, shape)) in every dimension. Also where each lies in the padded chunk.
struct ChunkElements {
  std::vector<std::uint64_t> element, place;
};
ChunkElements chunk_elements(const Shape& shape, const Shape& chunk, std::uint64_t index) {
  const std::size_t rank = shape.size();
  Shape first(rank), size(rank), at(rank, 0);
  for (std::size_t d = rank; d-- > 0;) {
    const std::uint64_t pieces = (shape[d] + chunk[d] - 1) / chunk[d];
    first[d] = index % pieces * chunk[d];
    size[d] = std::min(chunk[d], shape[d] - first[d]);
    index /= pieces;
  }
  ChunkElements out;
  for (;;) {
    std::uint64_t element = 0, place = 0;
    for (std::size_t d = 0; d < rank; ++d) {
      element = element * shape[d] + first[d] + at[d];
      place = place * chunk[d] + at[d];
    }
    out.element.push_back(element), out.place.push_back(place);
    std::size_t d = rank;
    while (d-- > 0 && ++at[d] == size[d]) at[d] = 0;
    if (d == static_cast<std::size_t>(-1)) return out;
  }
}

Shape random_shape(std::mt19937_64& random, std::size_t rank, std::uint64_t most) {
  Shape shape(rank);
  std::uint64_t product = 1;
  for (std::uint64_t& dim : shape) {
    const std::uint64_t limit = std::max<std::uint64_t>(1, most / product);
    dim = 1 + random() % std::min<std::uint64_t>(limit, std::uint64_t{1} << (random() % 25));
    product *= dim;
  }
  std::ranges::shuffle(shape, random);
  return shape;
}

}  // namespace

TEST_CASE("plan: units tile every tensor in order and are the chunks of its grid, for thousands of shapes", "[plan]") {
  std::mt19937_64 random(17);
  const Granularity granularity =
      GENERATE(Granularity::tensor, Granularity::model, Granularity::row, Granularity::group);
  std::vector<TensorInfo> tensors;
  for (int i = 0; i < 4000; ++i) {
    const DType types[] = {DType::bf16, DType::f32,     DType::f4,     DType::f6_e2m3,
                           DType::i64,  DType::f8_e4m3, DType::boolean};
    Shape shape = random_shape(random, random() % 6, std::uint64_t{1} << (random() % 31));
    if (random() % 50 == 0 && !shape.empty()) shape[random() % shape.size()] = 0;
    tensors.push_back(tensor("t" + std::to_string(i) + (random() % 4 ? "" : ".experts.w"), shape,
                             random() % 2 ? DType::bf16 : types[random() % std::size(types)]));
  }
  // One codebook serves 16-bit and smaller types together, not F32 beside them.
  if (granularity == Granularity::model)
    std::erase_if(tensors, [](const TensorInfo& info) { return info.dtype == DType::f32; });
  // Rows over the limit have their own case.
  if (granularity >= Granularity::row)
    std::erase_if(tensors, [](const TensorInfo& info) { return info.count() > kLongestRow; });
  const Plan plan = plan_of(tensors, all(granularity));
  check_laws(tensors, plan);
  REQUIRE(std::ranges::count(plan.tensors, Treatment::quantize, &TensorPlan::treatment) > 1000);
}

TEST_CASE("plan: a unit holds its chunk's elements, as a prefix of the chunk", "[plan]") {
  // Shapes that are cut only because many entries exceed the target; elements are compared one by one.
  const Shape shape = GENERATE(Shape{5, 1048577}, Shape{4194305}, Shape{3, 1, 1400001}, Shape{1, 1, 4500000, 1},
                               Shape{7, 11, 13, 4243}, Shape{2, 3, 700, 1001}, Shape{2049, 2049}, Shape{4200000, 1});
  const Granularity granularity = GENERATE(Granularity::tensor, Granularity::row);
  const std::vector<TensorInfo> tensors{tensor("x", shape)};
  const Plan plan = plan_of(tensors, all(granularity));
  const TensorPlan& planned = plan.tensors[0];
  CAPTURE(shape, planned.chunk);
  if (planned.treatment == Treatment::keep) {  // a codebook for each weight would make it larger
    REQUIRE((granularity == Granularity::row && shape == Shape{4200000, 1}));
    return;
  }
  REQUIRE((planned.units > 1 || planned.cols == planned.rows * planned.cols));
  for (std::uint64_t u = 0; u < planned.units; ++u) {
    const ChunkElements chunk = chunk_elements(shape, planned.chunk, u);
    const WorkUnit& unit = plan.units[u];
    bool equal = chunk.element.size() == unit.count;
    for (std::uint64_t k = 0; equal && k < unit.count; ++k)
      equal = chunk.element[k] == unit.begin + k && chunk.place[k] == k;
    REQUIRE(equal);
  }
}

TEST_CASE("plan: pieces are near the target and the last one is no crumb", "[plan]") {
  std::mt19937_64 random(23);
  for (int i = 0; i < 3000; ++i) {
    const std::uint64_t cols = 1 + random() % 20000, rows = kUnitWeights / cols + 1 + random() % 100000;
    const std::vector<TensorInfo> tensors{tensor("x", {rows, cols})};
    const Plan plan = plan_of(tensors, all(Granularity::tensor));
    const std::uint64_t full = plan.units.front().count, last = plan.units.back().count;
    CAPTURE(rows, cols, full, last);
    if (full * 4 < kUnitWeights || last * 2 < full) FAIL("crumbs");
  }
  REQUIRE(plan_of({tensor("x", {4096, 4096})}).tensors[0].chunk == Shape{1024, 4096});
  REQUIRE(plan_of({tensor("x", {2048, 2048})}).tensors[0].chunk == Shape{2048, 2048});
  REQUIRE(plan_of({tensor("x", {8, 4096, 14336})}).tensors[0].chunk == Shape{1, 274, 14336});
}
