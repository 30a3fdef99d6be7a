#include "lmq/plan/plan.hpp"
#include "lmq/plan/costs.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <ctime>
#include <set>

#include "lmq/base/error.hpp"
#include "plan_laws.hpp"

using namespace lmq;
using namespace lmq::plan_test;
using Catch::Matchers::Contains;

namespace {

std::string why(const std::vector<TensorInfo>& tensors, const Recipe& recipe = default_recipe()) {
  try {
    (void)plan_of(tensors, recipe);
  } catch (const Error& error) {
    const std::string what = error.what();
    REQUIRE(what.find('\n') == what.npos);
    return std::to_string(static_cast<int>(error.code)) + " " + what;
  }
  return "accepted";
}

}  // namespace

TEST_CASE("plan: the matrix a tensor is seen as", "[plan]") {
  const auto matrix = [](const std::string& name, Shape shape, std::optional<std::uint64_t> row_axes) {
    Recipe recipe = all(Granularity::row);
    recipe.rules[0].row_axes = row_axes;
    const Plan plan = plan_of({tensor(name, std::move(shape))}, recipe);
    return std::pair(plan.tensors[0].rows, plan.tensors[0].cols);
  };
  using P = std::pair<std::uint64_t, std::uint64_t>;
  REQUIRE(matrix("x", {3000}, {}) == P{1, 3000});
  REQUIRE(matrix("x", {30, 70}, {}) == P{30, 70});
  REQUIRE(matrix("x", {30, 70}, 0) == P{30, 70});
  REQUIRE(matrix("x", {30, 70, 9}, {}) == P{30, 630});
  REQUIRE(matrix("mlp.experts.w", {30, 70, 9}, {}) == P{2100, 9});
  REQUIRE(matrix("mlp.experts.w", {30, 70, 9}, 1) == P{30, 630});
  REQUIRE(matrix("x", {30, 70, 9}, 2) == P{2100, 9});
  REQUIRE(matrix("x", {30, 70, 9}, 0) == P{1, 18900});
  REQUIRE(matrix("x", {30, 70, 9}, 3) == P{18900, 1});
  REQUIRE(matrix("expert.conv", {64, 32, 3, 3}, {}) == P{64, 288});
  REQUIRE_THROWS_WITH(matrix("x", {30, 70, 9}, 4), Contains("row_axes: found 4, but tensor \"x\" has 3 dimensions"));
}

TEST_CASE("plan: what is kept says why", "[plan]") {
  Recipe recipe = default_recipe();
  recipe.rules.push_back({.match = "lm_head*", .keep = true});
  std::vector<TensorInfo> tensors{tensor("a.norm", {4096}),
                                  tensor("b.small", {31, 33}),
                                  tensor("c.ids", {64, 64}, DType::i64),
                                  tensor("d.scalar", {}),
                                  tensor("e.empty", {0, 64}),
                                  tensor("f.mlp.gate.weight", {64, 64}),
                                  tensor("lm_head.weight", {64, 64}),
                                  tensor("m.nan", {64, 64}),
                                  tensor("n.weight", {32, 32})};
  const Plan plan = make_plan(tensors, "", recipe, {}, {{7, Fitness::nonfinite}});
  std::vector<std::string> reasons;
  for (const TensorPlan& planned : plan.tensors) reasons.push_back(planned.reason);
  REQUIRE(reasons == std::vector<std::string>{"1 dimension", "fewer than 1024 weights", "type I64", "0 dimensions",
                                              "no elements", "rule '*.mlp.gate.*' keeps it", "rule 'lm_head*' keeps it",
                                              "holds NaN or infinity", ""});
  REQUIRE(plan.tensors[4].units == 0);
  REQUIRE(plan.tensors[8].treatment == Treatment::quantize);
  REQUIRE(plan.tensors[8].rule == -1);
  REQUIRE(plan.tensors[6].rule == static_cast<std::int64_t>(recipe.rules.size()) - 1);
  check_laws(tensors, plan);
}

TEST_CASE("plan: the first rule that matches decides", "[plan]") {
  const Recipe recipe{
      .rules = {{.match = "*embed*", .levels = 64}, {.match = "*.w?", .levels = 8}, {.match = "*", .levels = 4}}};
  const Plan plan = plan_of({tensor("embed.w1", {64, 64}), tensor("x.w1", {64, 64}), tensor("y", {64, 64})}, recipe);
  REQUIRE(plan.tensors[0].spec.options.levels == 64);
  REQUIRE(plan.tensors[1].spec.options.levels == 8);
  REQUIRE(plan.tensors[2].spec.options.levels == 4);
  REQUIRE(plan.tensors[2].rule == 2);
}

TEST_CASE("plan: a block scale goes where its tensor goes", "[plan]") {
  std::vector<TensorInfo> tensors{tensor("a", {4096, 4096}, DType::f8_e4m3), tensor("a_scale", {128, 128}, DType::f32),
                                  tensor("lm_head", {4096, 4096}, DType::f8_e4m3),
                                  tensor("lm_head_scale", {128, 128}, DType::f32)};
  for (std::size_t i : {0u, 2u}) {
    tensors[i].scale = static_cast<std::int64_t>(i + 1), tensors[i + 1].scales = static_cast<std::int64_t>(i);
    tensors[i].scale_block_rows = tensors[i].scale_block_cols = 32;
  }
  const Recipe recipe{.rules = {{.match = "lm_head", .keep = true}, {.match = "*"}}};
  const Plan plan = plan_of(tensors, recipe);
  REQUIRE(plan.tensors[0].treatment == Treatment::quantize);
  REQUIRE(plan.tensors[1].treatment == Treatment::fold);
  REQUIRE(plan.tensors[1].reason == "folded into 'a'");
  REQUIRE(plan.tensors[1].units == 0);
  REQUIRE(plan.tensors[3].treatment == Treatment::keep);
  REQUIRE(plan.tensors[3].reason == "scales the kept 'lm_head'");
  REQUIRE(as_stored(tensors[2], Treatment::keep).value_type() == DType::f8_e4m3);
  REQUIRE(as_stored(tensors[0], Treatment::quantize).value_type() == DType::f32);
  check_laws(tensors, plan);
}

TEST_CASE("plan: tensors over one unit and whole models share a codebook, small ones and rows do not", "[plan]") {
  const std::vector<TensorInfo> tensors{tensor("a.big", {4096, 4096}), tensor("a.small", {64, 64}),
                                        tensor("b.big", {8192, 4096}), tensor("b.small", {64, 64})};
  const Plan each = plan_of(tensors, all(Granularity::tensor));
  REQUIRE(each.scopes.size() == 2);
  REQUIRE(each.tensors[0].scope == 0);
  REQUIRE(each.tensors[1].scope == -1);
  REQUIRE(each.tensors[2].scope == 1);
  REQUIRE(each.scopes[1].weights == tensors[2].count());
  REQUIRE(each.scopes[1].tensors == std::vector<std::uint32_t>{2});

  const Recipe recipe{
      .rules = {{.match = "a.*", .granularity = Granularity::model}, {.granularity = Granularity::model}}};
  const Plan model = plan_of(tensors, recipe);
  REQUIRE(model.scopes.size() == 2);
  REQUIRE(model.scopes[0].tensors == std::vector<std::uint32_t>{0, 1});
  REQUIRE(model.scopes[1].tensors == std::vector<std::uint32_t>{2, 3});
  REQUIRE(model.scopes[0].weights == tensors[0].count() + tensors[1].count());
  REQUIRE(model.tensors[3].scope == 1);

  REQUIRE(plan_of(tensors, all(Granularity::row)).scopes.empty());
  REQUIRE(plan_of(tensors, all(Granularity::group)).scopes.empty());
}

TEST_CASE("plan: the quantum of a scope follows from its largest importance and all its weights", "[plan]") {
  const std::vector<TensorInfo> tensors{tensor("a", {4096, 4096}), tensor("b", {64, 64}), tensor("c", {99}),
                                        tensor("d", {64, 64})};
  std::vector<std::string> asked;
  const auto importance = [&](const TensorInfo& info, std::uint64_t cols) -> ImportanceInfo {
    asked.push_back(info.name + ":" + std::to_string(cols));
    return {.kind = ImportanceKind::columns, .largest = info.name == "b" ? 900.0 : 3.0};
  };
  Recipe recipe = default_recipe();
  const Plan plan = make_plan(tensors, "", recipe, importance);
  REQUIRE(asked == std::vector<std::string>{"a:4096", "b:64", "d:64"});
  REQUIRE(plan.scopes[0].quantum == importance_quantum(3.0, 4096 * 4096));
  REQUIRE(importance_quantum_of(plan, plan.units[0]) == plan.scopes[0].quantum);
  REQUIRE(importance_quantum_of(plan, plan.units[plan.tensors[1].first_unit]) == importance_quantum(900.0, 4096));

  recipe.rules = {{.granularity = Granularity::model}};
  const Plan model = make_plan(tensors, "", recipe, importance);
  REQUIRE(model.scopes.size() == 1);
  REQUIRE(model.scopes[0].quantum == importance_quantum(900.0, 4096 * 4096 + 2 * 4096));
  const auto partial = [](const TensorInfo& info, std::uint64_t) {
    return ImportanceInfo{.kind = info.name != "b" ? ImportanceKind::columns : ImportanceKind::none};
  };
  REQUIRE_THROWS_WITH(make_plan(tensors, "", recipe, partial), Contains("tensors \"a\" and \"b\" share a codebook"));
  const std::vector<TensorInfo> mixed{tensor("a", {64, 64}), tensor("f", {64, 64}, DType::f16),
                                      tensor("x", {64, 64}, DType::f32)};
  REQUIRE_THROWS_WITH(make_plan(mixed, "", recipe, {}),
                      Contains("\"a\" and \"x\" share a codebook (granularity model), but one is BF16"));
  const auto broken = [](const TensorInfo&, std::uint64_t) -> ImportanceInfo { fail(Errc::malformed, "bad shape"); };
  REQUIRE_THROWS_WITH(make_plan(tensors, "", recipe, broken), "bad shape");
}

TEST_CASE("plan: rows of large vocabularies are tokens, by name and shape", "[plan]") {
  const auto tokens = [](const char* name, Shape shape) {
    return plan_of({tensor(name, std::move(shape))}).tensors[0].token_rows;
  };
  for (const char* name : {"model.embed_tokens.weight", "lm_head.weight", "transformer.wte.weight", "token_embd.weight",
                           "output.weight", "shared.weight", "bert.embeddings.word_embeddings.weight"})
    CHECK(tokens(name, {49152, 576}));
  CHECK_FALSE(tokens("model.embed_tokens.weight", {8191, 64}));
  CHECK_FALSE(tokens("model.embed_tokens.weight", {8192, 8192}));
  CHECK_FALSE(tokens("model.embed_tokens.weight", {2, 49152, 64}));
  for (const char* name : {"head.weight", "classifier.weight", "model.layers.0.mlp.up_proj.weight", "lm_head.bias",
                           "model.embed_positions.weight", "attention.output.dense.weight"})
    CHECK_FALSE(tokens(name, {49152, 576}));
}

TEST_CASE("plan: a row longer than the limit needs another granularity", "[plan]") {
  const std::vector<TensorInfo> tensors{tensor("x", {2, kLongestRow + 1})};
  REQUIRE_THAT(why(tensors, all(Granularity::row)),
               Contains("64 rule \"*\".granularity: tensor \"x\" has rows of 268435457 weights"));
  REQUIRE_THAT(why(tensors, all(Granularity::group)), Contains("use \"tensor\""));
  REQUIRE(why(tensors, all(Granularity::tensor)) == "accepted");
  const std::vector<TensorInfo> longest{tensor("x", {2, kLongestRow})};
  REQUIRE(plan_of(longest, all(Granularity::row)).tensors[0].chunk == Shape{1, kLongestRow});
}

TEST_CASE("plan: names that HDF5 cannot hold side by side are refused with both names", "[plan]") {
  const auto names = [](const std::vector<std::string>& list) {
    std::vector<TensorInfo> tensors;
    for (const std::string& name : list) tensors.push_back(tensor(name, {2}));
    return why(tensors);
  };
  REQUIRE_THAT(names({"a", "a/b"}), Contains("69 tensors \"a\" and \"a/b\""));
  REQUIRE_THAT(names({"a/b/c/d", "a/b", "a.x"}), Contains("tensors \"a/b\" and \"a/b/c/d\""));
  REQUIRE_THAT(names({"a", "a"}), Contains("two tensors have this name"));
  for (const char* bad : {"", "/a", "a/", "a//b", "/", ".", "a/./b", "./a", "lmq", "lmq/recipe", "a/."}) {
    CAPTURE(bad);
    REQUIRE_THAT(names({bad}), Contains("69 tensor"));
  }
  std::string deep = "a";
  for (int i = 0; i < 64; ++i) deep += "/a";
  for (const std::string& bad : {std::string("a\xFF"), std::string("a\0b", 3), std::string(1001, 'n'), deep}) {
    CAPTURE(bad.size());
    REQUIRE_THAT(names({bad}), Contains("69 tensor"));
  }
  REQUIRE(names({std::string(1000, 'n'), deep.substr(2)}) == "accepted");
  REQUIRE(names({"a.b", "a", "a.c/c", "lmq.x", "lmqx/y", "x/lmq", "..", "a-/b", "a-/c"}) == "accepted");
  REQUIRE_THAT(why({tensor("x", Shape(33, 1))}), Contains("33 dimensions"));
  REQUIRE(why({tensor("x", Shape(32, 1))}) == "accepted");
}

TEST_CASE("plan: vectors are told by extents above 1, whatever their rank", "[plan]") {
  const std::vector<TensorInfo> tensors{tensor("a", {1, 1, 2048}), tensor("b", {2048, 1}), tensor("c", {1, 2048, 1, 1}),
                                        tensor("d", {1, 6, 1152}), tensor("e", {1, 1})};
  Recipe recipe = default_recipe();
  const Plan plan = plan_of(tensors, recipe);
  for (const std::size_t vector : {0, 1, 2, 4}) CHECK(plan.tensors[vector].reason == "a vector: one dimension above 1");
  CHECK(plan.tensors[3].treatment == Treatment::quantize);
  recipe.keep_vectors = false;
  CHECK(plan_of(tensors, recipe).tensors[0].treatment == Treatment::quantize);
}

TEST_CASE("plan: what would grow is kept, with both sizes", "[plan]") {
  const auto treated = [](Shape shape, Rule rule, DType type = DType::bf16) {
    Recipe recipe = default_recipe();
    recipe.rules.push_back(std::move(rule));
    return plan_of({tensor("x", std::move(shape), type)}, recipe).tensors[0];
  };
  const Rule rows{.method = "kmeans", .levels = 16, .granularity = Granularity::row};
  const TensorPlan grown = treated({2048, 1, 4}, rows);
  CHECK(grown.treatment == Treatment::keep);
  CHECK(grown.reason == "would grow: 16.0 KiB as it is, at least 17.9 KiB quantized");
  const Rule all_levels{.method = "kmeans", .levels = 256, .granularity = Granularity::row};
  CHECK(treated({4, 523}, all_levels).reason == "would grow: 4,184 bytes as it is, at least 4,188 bytes quantized");
  for (const DType type : {DType::bf16, DType::f16}) {
    CHECK(treated({64, 420}, all_levels, type).treatment == Treatment::keep);
    CHECK(treated({64, 440}, all_levels, type).treatment == Treatment::keep);
    CHECK(treated({32, 32}, {.method = "kmeans", .levels = 256}, type).treatment == Treatment::keep);
    CHECK(treated({64, 1024}, all_levels, type).treatment == Treatment::quantize);
  }
  CHECK(treated({32, 33}, {.method = "uniform", .levels = 256}).treatment == Treatment::quantize);
  CHECK(treated({2048, 1, 4}, {.method = "kmeans", .levels = 16}).treatment == Treatment::quantize);
  CHECK(treated({64, 100}, rows).treatment == Treatment::quantize);
  CHECK(treated({512, 16}, rows).treatment == Treatment::keep);
  CHECK(treated({512, 16}, {.method = "uniform", .levels = 16, .granularity = Granularity::row}).treatment ==
        Treatment::quantize);
  CHECK(
      treated({64, 512}, {.method = "kmeans", .levels = 16, .granularity = Granularity::group, .group = 8}).treatment ==
      Treatment::keep);
  CHECK(treated({64, 512}, {.method = "kmeans", .levels = 16, .granularity = Granularity::group, .group = 32})
            .treatment == Treatment::quantize);
  CHECK(treated({512, 16}, {.method = "ecsq", .granularity = Granularity::row}).treatment == Treatment::quantize);
  CHECK(treated({32, 32}, {.method = "kmeans", .levels = 256}, DType::f8_e4m3).treatment == Treatment::keep);
  CHECK(treated({256, 256}, {.method = "kmeans", .levels = 256}, DType::f8_e4m3).treatment == Treatment::quantize);
}

TEST_CASE("plan: companions are kept, what is scaled wrongly is refused only where a rule would quantize it",
          "[plan]") {
  const std::vector<TensorInfo> tensors{tensor("a.scales", {64, 64}), tensor("b.weight", {64, 64}, DType::f8_e4m3)};
  const auto planned = [&](Fitness fitness, const Recipe& recipe) {
    return make_plan(tensors, "", recipe, {}, {{0, Fitness::companion, "belongs to 'a'"}, {1, fitness, "file: b"}});
  };
  const auto refusal = [&](Fitness fitness, const Recipe& recipe) -> std::string {
    try {
      (void)planned(fitness, recipe);
    } catch (const Error& error) {
      return std::to_string(static_cast<int>(error.code)) + " " + error.what();
    }
    return "accepted";
  };
  const Recipe plain = default_recipe();
  CHECK_THAT(refusal(Fitness::unscaled, plain),
             Contains("69 file: b: start from the unquantized model") && Contains("--fp8 plain"));
  CHECK_THAT(refusal(Fitness::unsupported, plain), Contains("69 file: b: "));
  CHECK_THAT(refusal(Fitness::malformed, plain), Contains("65 file: b: "));
  Recipe told = plain, keeps = plain;
  told.fp8 = Recipe::Fp8::plain;
  CHECK(refusal(Fitness::unscaled, told) == "accepted");
  CHECK_THAT(refusal(Fitness::unsupported, told), Contains("69 file: b: "));
  CHECK(Recipe::parse(told.canonical_json(), "r").fp8 == Recipe::Fp8::plain);
  CHECK(plain.canonical_json().find("fp8") == std::string::npos);
  keeps.rules.push_back({.match = "b.*", .keep = true});
  for (const Fitness fitness : {Fitness::unscaled, Fitness::unsupported, Fitness::malformed})
    CHECK(refusal(fitness, keeps) == "accepted");
  const Plan plan = planned(Fitness::unscaled, told);
  CHECK(plan.tensors[0].reason == "belongs to 'a'");
  CHECK(plan.tensors[1].treatment == Treatment::quantize);
}

TEST_CASE("plan: the digest follows everything that decides the bytes and nothing else", "[plan]") {
  const std::vector<TensorInfo> base{tensor("a", {4096, 4096}), tensor("b", {64, 64})};
  const auto digest = [&](auto change) {
    std::vector<TensorInfo> tensors = base;
    Recipe recipe = default_recipe();
    std::string catalogue = "digest";
    ImportanceInfo importance;
    std::vector<TensorNote> notes;
    change(tensors, recipe, catalogue, importance, notes);
    return make_plan(
               tensors, catalogue, recipe, [&](const TensorInfo&, std::uint64_t) { return importance; }, notes)
        .digest;
  };
  const std::string plain = digest([](auto&...) {});
  REQUIRE(plain.size() == 32);
  REQUIRE(plain == plan_of(base).digest);
  REQUIRE(plain == digest([](auto& t, auto& r, auto&, auto&, auto&) {
            t[0].shard = 3, t[0].offset = 99, r.rules.push_back({});
          }));
  const std::set<std::string> digests{
      plain,
      digest([](auto& t, auto&, auto&, auto&, auto&) { t[0].name = "a2"; }),
      digest([](auto& t, auto&, auto&, auto&, auto&) {
        t[0].shape = {4096, 4095};
      }),
      digest([](auto& t, auto&, auto&, auto&, auto&) {
        t[0].shape = {4096, 64, 64};
      }),
      digest([](auto& t, auto&, auto&, auto&, auto&) { t[0].dtype = DType::f16; }),
      digest([](auto& t, auto&, auto&, auto&, auto&) { t.pop_back(); }),
      digest([](auto&, auto& r, auto&, auto&, auto&) { r.rules.push_back({.levels = 8}); }),
      digest([](auto&, auto& r, auto&, auto&, auto&) { r.rules.push_back({.coder = CoderChoice::fixed}); }),
      digest([](auto&, auto&, auto& c, auto&, auto&) { c = "other"; }),
      digest([](auto&, auto&, auto&, auto& i, auto&) { i = {.kind = ImportanceKind::columns, .largest = 1}; }),
      digest([](auto&, auto&, auto&, auto& i, auto&) { i = {.kind = ImportanceKind::outer, .largest = 1}; }),
      digest([](auto&, auto& r, auto&, auto&, auto&) { r.importance_power = 0.5; }),
      digest([](auto&, auto&, auto&, auto& i, auto&) { i = {.kind = ImportanceKind::columns, .largest = 2}; }),
      digest([](auto&, auto&, auto&, auto&, auto& n) {
        n = {{1, Fitness::nonfinite}};
      })};
  REQUIRE(digests.size() == 14);
}

TEST_CASE("plan: memory is bounded by the unit, not by the model", "[plan]") {
  std::vector<TensorInfo> tensors;
  for (int i = 0; i < 100; ++i) tensors.push_back(tensor("layer" + std::to_string(i), {8192, 8192}));
  const Plan plan = plan_of(tensors);
  const MemoryEstimate one = estimate_memory(tensors, plan, 1), many = estimate_memory(tensors, plan, 16);
  REQUIRE(one.program >= kProgramBytes);
  REQUIRE(one.input >= 2 * kUnitWeights * 2);
  REQUIRE(one.work >= kUnitWeights);
  REQUIRE(one.output >= kUnitWeights);
  REQUIRE(many.total() >= one.total());
  REQUIRE(many.total() < (std::uint64_t{1} << 30));
  tensors.resize(10);
  const MemoryEstimate few = estimate_memory(tensors, plan_of(tensors), 1);
  REQUIRE(few.input == one.input);
  REQUIRE(few.work == one.work);
  REQUIRE(few.output == one.output);
  const MemoryEstimate wide = estimate_memory(tensors, plan_of(tensors), 1, 1000);  // more ranks than scopes
  REQUIRE(wide.coordinator >= few.coordinator);
  REQUIRE(wide.coordinator < (std::uint64_t{100} << 20));
  REQUIRE(wide.total() - wide.coordinator == few.total() - few.coordinator + kMpiBytes);
  REQUIRE(estimate_memory({}, plan_of({}), 1).total() >= one.program / 2);
}

TEST_CASE("plan: more ranks and threads never take longer, and never less than the dearest unit", "[plan]") {
  std::vector<TensorInfo> tensors;
  for (int i = 0; i < 20; ++i)
    tensors.push_back(tensor("layer" + std::to_string(i), {4096, 4096}, i % 2 ? DType::f32 : DType::bf16));
  const Plan plan = plan_of(tensors);
  double before = 1e9;
  for (const std::size_t ranks : {1u, 2u, 4u, 64u, 100000u}) {
    const double seconds = estimate_seconds(plan, ranks, 4);
    REQUIRE(seconds <= before);
    REQUIRE(estimate_seconds(plan, ranks, 8) <= seconds);
    REQUIRE(seconds >= std::ranges::max(plan.units, {}, &WorkUnit::seconds).seconds / 4);
    before = seconds;
  }
  REQUIRE(estimate_seconds(plan_of({}), 1, 1) >= 0);
  REQUIRE(estimate_seconds(plan, 0, 0) == estimate_seconds(plan, 1, 1));
  // k-means per row costs several times more than one codebook for the tensor, even where F32 is looked at again.
  REQUIRE(estimate_seconds(plan_of(tensors, all(Granularity::row)), 1, 1) > 3 * estimate_seconds(plan, 1, 1));
}

TEST_CASE("plan: a model of 10^12 weights in 100,000 tensors is planned in seconds", "[plan]") {
  std::vector<TensorInfo> tensors;
  for (int layer = 0; layer < 60; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer);
    for (int expert = 0; expert < 555; ++expert)
      for (const char* part : {"gate_proj", "up_proj", "down_proj"})
        tensors.push_back(
            tensor(prefix + ".mlp.experts." + std::to_string(expert) + "." + part + ".weight", {2048, 4883}));
    for (const char* part : {"mlp.gate.weight", "self_attn.q_proj.weight"})
      tensors.push_back(tensor(prefix + "." + part, {4096, 4096}));
  }
  std::ranges::sort(tensors, {}, &TensorInfo::name);
  const std::clock_t start = std::clock();  // processor time: other work on the machine counts little
  const Plan plan = plan_of(tensors);
  const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  std::uint64_t weights = 0;
  for (const TensorInfo& info : tensors) weights += info.count();
  REQUIRE(weights > 990'000'000'000);
  const MemoryEstimate memory = estimate_memory(tensors, plan, 8);
  INFO(tensors.size() << " tensors, " << plan.units.size() << " units, " << seconds << " s, " << memory.total()
                      << " bytes");
  REQUIRE(seconds < 10);
  REQUIRE(memory.total() < (std::uint64_t{2} << 30));
  check_laws(tensors, plan);
}
