// Methods that see layers: how their tensors are cut, what is asked of their rules, what they are said to take.
#include <catch2/catch.hpp>
#include <random>

#include "lmq/base/error.hpp"
#include "plan_laws.hpp"

using namespace lmq;
using namespace lmq::plan_test;

namespace {

Recipe layers(Rule rule = {}) {
  rule.method = "waterfill";
  return {.rules = {rule}, .min_elements = 0, .keep_vectors = false};
}

Plan plan_with(const std::vector<TensorInfo>& tensors, const ImportanceInfo& importance) {
  return make_plan(tensors, "digest", layers(), [&](const TensorInfo&, std::uint64_t) { return importance; });
}

/// Units are runs of whole lanes of one layer, in order; a layer's last one may be shorter.
bool tiles(const TensorPlan& planned, const Plan& plan, std::uint64_t layer_rows) {
  std::uint64_t next = 0;
  for (std::uint64_t u = planned.first_unit; u < planned.first_unit + planned.units; ++u) {
    const WorkUnit& unit = plan.units[u];
    const std::uint64_t row = unit.begin / planned.cols, rows = unit.count / planned.cols;
    const std::uint64_t within = row % layer_rows, lanes = (rows + planned.lane_rows - 1) / planned.lane_rows;
    const bool last = within + rows == layer_rows;
    if (unit.begin != next || unit.count % planned.cols != 0 || within % planned.lane_rows != 0) return false;
    if (within + rows > layer_rows || (!last && rows % planned.lane_rows != 0)) return false;
    if (lanes > kMaxTrellisLanes || (lanes > 1 && unit.count > kUnitWeights)) return false;
    next += unit.count;
  }
  return next == planned.rows * planned.cols;
}

}  // namespace

TEST_CASE("plan: units of methods that see layers are whole lanes of one layer", "[plan][layer]") {
  std::mt19937_64 random(29);
  for (int i = 0; i < 3000; ++i) {
    const bool stack = random() % 3 == 0;
    const std::uint64_t rows = 1 + random() % (std::uint64_t{1} << random() % 16), cols = 1 + random() % 9000;
    const Shape shape = stack ? Shape{1 + random() % 5, rows, cols} : Shape{rows, cols};
    const ImportanceInfo importance{.kind = ImportanceKind::columns,
                                    .outer_rows = random() % 2 ? 0 : 1 + random() % 700};
    const Plan plan = plan_with({tensor(stack ? "experts.w" : "w", shape)}, importance);
    const TensorPlan& planned = plan.tensors[0];
    CAPTURE(shape, planned.chunk, planned.lane_rows, importance.outer_rows);
    if (planned.treatment != Treatment::quantize) FAIL(planned.reason);
    if (importance.outer_rows > 0 && planned.lane_rows % importance.outer_rows != 0) FAIL("blocks are cut");
    if (!tiles(planned, plan, rows)) FAIL("no whole lanes");
    if (planned.units != chunk_count(shape, planned.chunk)) FAIL("units are not the chunks");
  }
}

TEST_CASE("plan: lanes of a layer as it comes, and one that is too wide", "[plan][layer]") {
  CHECK(plan_of({tensor("w", {4096, 4096})}, layers()).tensors[0].chunk == Shape{1024, 4096});
  CHECK(plan_of({tensor("w", {4096, 28672})}, layers()).tensors[0].chunk == Shape{256, 28672});
  CHECK(plan_of({tensor("w", {352, 128})}, layers()).tensors[0].chunk == Shape{352, 128});
  CHECK(plan_of({tensor("experts.w", {8, 100, 64})}, layers()).tensors[0].chunk == Shape{1, 100, 64});
  CHECK(plan_of({tensor("w", {64, 3, 3, 3})}, layers()).tensors[0].cols == 27);
  CHECK(plan_of({tensor("w", {2048})}, layers()).tensors[0].chunk == Shape{2048});
  try {
    (void)plan_of({tensor("w", {256, std::uint64_t{1} << 22})}, layers());
    FAIL("a lane that no record holds");
  } catch (const Error& error) {
    CHECK(error.code == Errc::usage);
    CHECK_THAT(error.what(), Catch::Contains("\"w\"") && Catch::Contains("waterfill"));
  }
}

TEST_CASE("plan: curvature costs time and memory, and is part of the digest", "[plan][layer]") {
  const std::vector<TensorInfo> tensors{tensor("w", {2048, 1024})};
  const Plan none = plan_with(tensors, {}),
             gram = plan_with(tensors, {.kind = ImportanceKind::columns, .length = 1024, .gram = true});
  const Plan both =
      plan_with(tensors, {.kind = ImportanceKind::columns, .length = 1024, .gram = true, .outer_rows = 256});
  CHECK(estimate_seconds(none, 1, 1) < estimate_seconds(gram, 1, 1));
  CHECK(estimate_seconds(gram, 1, 1) < estimate_seconds(both, 1, 1));
  const auto input = [&](const Plan& plan) { return estimate_memory(tensors, plan, 1).input; };
  CHECK(input(gram) - input(none) >= 4 * 1024 * 1024);  // the only unit, read once
  CHECK(input(both) - input(gram) == 4 * 2048 * 256);
  CHECK(none.digest != gram.digest);
  CHECK(gram.digest != both.digest);
}

TEST_CASE("plan: memory of rows and groups with a size is that of the levels it has room for", "[plan]") {
  const std::vector<TensorInfo> tensors{tensor("w", {4096, 1024})};
  const auto memory = [&](Granularity granularity, double bits) {
    Recipe recipe;
    Rule rule;
    rule.match = "*", rule.method = "kmeans", rule.granularity = granularity;
    if (granularity == Granularity::group) rule.group = 64;
    if (bits == 0) rule.levels = 16;
    recipe.rules = {rule};
    if (bits > 0) recipe.target = Target{0, bits};
    return estimate_memory(tensors, plan_of(tensors, recipe), 1);
  };
  for (const Granularity granularity : {Granularity::row, Granularity::group}) {
    const MemoryEstimate few = memory(granularity, 2), more = memory(granularity, 6), sixteen = memory(granularity, 0);
    CHECK(few.work + few.output <= more.work + more.output);
    CHECK(few.work + few.output <= sixteen.work + sixteen.output + (std::uint64_t{4} << 20));  // what is tried
    CHECK(few.coordinator < (std::uint64_t{7} << 20));                                         // no histograms
  }
}

TEST_CASE("plan: of two units that are read once the buffers hold one each", "[plan]") {
  const auto input = [](const std::vector<TensorInfo>& tensors) {
    Recipe recipe;
    Rule rule;
    rule.match = "*", rule.method = "kmeans", rule.levels = 4, rule.granularity = Granularity::row;
    recipe.rules = {rule};
    return estimate_memory(tensors, plan_of(tensors, recipe), 1).input;
  };
  const std::uint64_t large = input({tensor("a", {1024, 1024})}), small = input({tensor("b", {64, 1024})});
  CHECK(input({tensor("a", {1024, 1024}), tensor("b", {64, 1024})}) == large + small);
  CHECK(input({tensor("a", {1024, 1024}), tensor("b", {64, 1024}), tensor("c", {1024, 1024})}) == 2 * large);
}

TEST_CASE("recipe: what only codebooks have is refused for methods that see layers", "[plan][layer]") {
  const auto refused = [](const Rule& rule, const char* field) {
    try {
      (void)plan_of({tensor("w", {64, 64})}, layers(rule));
      FAIL("taken: " << field);
    } catch (const Error& error) {
      CHECK(error.code == Errc::usage);
      CHECK_THAT(error.what(), Catch::Contains(field) && Catch::Contains("waterfill"));
    }
  };
  refused({.granularity = Granularity::tensor}, "granularity");
  refused({.granularity = Granularity::group, .group = 32}, "granularity");
  refused({.coder = CoderChoice::fixed}, "coder");
  const std::string text = layers().canonical_json();
  CHECK(Recipe::parse(text, "itself").canonical_json() == text);
}
