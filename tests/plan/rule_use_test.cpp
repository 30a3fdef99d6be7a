#include "lmq/base/error.hpp"
#include "plan_laws.hpp"

using namespace lmq;
using namespace lmq::plan_test;
using Catch::Matchers::Contains;

namespace {

std::vector<TensorInfo> small_model() {
  std::vector<TensorInfo> tensors;
  for (int i = 0; i < 12; ++i) {
    const std::string layer = "model.layers." + std::to_string(i);
    for (const char* part : {".mlp.up_proj.weight", ".self_attn.q_proj.weight"})
      tensors.push_back(tensor(layer + part, {64, 64}));
    tensors.push_back(tensor(layer + ".norm.weight", {64}));
  }
  tensors.push_back(tensor("lm_head.weight", {64, 64}));
  std::ranges::sort(tensors, {}, &TensorInfo::name);
  return tensors;
}

Recipe with(std::vector<Rule> rules) { return {.rules = std::move(rules)}; }

/// The message of the usage error that planning must give.
std::string refusal(const std::vector<TensorInfo>& tensors, const Recipe& recipe) {
  try {
    (void)plan_of(tensors, recipe);
  } catch (const Error& error) {
    REQUIRE(error.code == Errc::usage);
    return error.what();
  }
  FAIL("planned");
  return {};
}

std::vector<std::string> idle(const std::vector<TensorInfo>& tensors, const Recipe& recipe) {
  return idle_rules(tensors, recipe, plan_of(tensors, recipe));
}

}  // namespace

TEST_CASE("rules: one that matches no tensor is refused with its place and the nearest names", "[plan][rules]") {
  const auto tensors = small_model();
  const auto says = [&](const char* pattern, const char* words) {
    CAPTURE(pattern);
    CHECK_THAT(refusal(tensors, with({{.match = pattern, .keep = true}})), Contains(words));
  };
  says("*.mlp.up_prj.weight",
       R"("*.mlp.up_prj.weight" matches no tensor; near are "model.layers.0.mlp.up_proj.weight" (12 alike))");
  says("*.self_attn.[kq]_prj.*", R"(near are "model.layers.0.self_attn.q_proj.weight" (12 alike))");
  says("LM_head.weight", R"(large and small letters differ: it would match "lm_head.weight")");
  says("MLP", R"(it would match "model.layers.0.mlp.up_proj.weight")");
  says(".*\\.mlp\\..*", R"(no regular expressions ('*' stands for any text): "*.mlp.*" matches 12)");
  says("re:mlp", R"("*mlp*" matches 12)");
  says("^lm_head", R"("*lm_head*" matches 1)");
  says("model.layers.\\d*.mlp.up_proj.weight$", "matches 12");
  says("(lm_head|embed).*", "patterns are no regular expressions");
  says("lm_head", R"(a pattern is for whole names: "*lm_head*" matches 1)");
  says("mlp", R"("*mlp*" matches 12)");
  says("*visual.blocks*", "lmq inspect lists the names");
  says("\\", "lmq inspect lists the names");
  const Recipe recipe = Recipe::parse(R"({"rules":[{"match":"*","keep":false}]})", "r.json");
  REQUIRE_NOTHROW(plan_of(tensors, recipe));
  CHECK_THAT(
      refusal(tensors, Recipe::parse(R"({"rules":[{"match":"*head*","bits":6},{"match":"*.mpl.*"}]})", "r.json")),
      Contains("r.json: rules[1]: \"*.mpl.*\" matches no tensor"));
  CHECK_THAT(refusal({}, with({{.match = "x"}})), Contains("the checkpoint has none"));
}

TEST_CASE("rules: what matches everything, is built in or optional may match nothing", "[plan][rules]") {
  const auto tensors = small_model();
  REQUIRE_NOTHROW(plan_of(tensors, default_recipe()));
  REQUIRE_NOTHROW(plan_of({}, default_recipe()));
  REQUIRE_NOTHROW(plan_of({}, with({{.match = "**"}})));
  REQUIRE_NOTHROW(plan_of(tensors, with({{.match = "*router*", .keep = true, .optional = true}})));
  // A stored recipe names the built-in rules; it must serve as a recipe again.
  for (const char* text :
       {"{}", R"({"rules":[{"match":"*expert*","optional":true,"bits":3},{"match":"lm_head*","bits":6}]})"}) {
    const std::string stored = Recipe::parse(text, "r.json").canonical_json();
    REQUIRE_NOTHROW(plan_of(tensors, Recipe::parse(stored, "stored")));
    REQUIRE(Recipe::parse(stored, "stored").canonical_json() == stored);
  }
}

TEST_CASE("rules: one whose tensors are all decided otherwise is named with the reason", "[plan][rules]") {
  const auto tensors = small_model();
  const auto shadowed = idle(tensors, with({{.match = "*proj*", .levels = 8},
                                            {.match = "*.mlp.*", .levels = 4, .place = {.text = "r.json: rules[1]"}}}));
  REQUIRE(shadowed.size() == 1);
  CHECK_THAT(shadowed[0], Contains("r.json: rules[1]: \"*.mlp.*\" decides no tensor: of 12 it matches, "
                                   "\"model.layers.0.mlp.up_proj.weight\" is decided by rule \"*proj*\""));
  const auto kept = idle(tensors, with({{.match = "*norm*", .levels = 8}}));
  REQUIRE(kept.size() == 1);
  CHECK_THAT(kept[0], Contains("is kept: 1 dimension"));
  CHECK(idle(tensors, with({{.match = "*norm*", .keep = true}})).empty());  // what it wants happens
  CHECK(idle(tensors, with({{.match = "*proj*", .levels = 8}, {.match = "*", .keep = true}})).empty());
  CHECK(idle(tensors, default_recipe()).empty());
}

TEST_CASE("rules: a field set from a text is the field of the recipe", "[plan][rules]") {
  Rule rule{.place = {.command_line = true}};
  for (const auto& [key, text] : std::vector<std::pair<std::string, std::string>>{{"method", "uniform"},
                                                                                  {"bits", "3"},
                                                                                  {"granularity", "group"},
                                                                                  {"group", "64"},
                                                                                  {"coder", "rans"},
                                                                                  {"level_type", "f32"}})
    set_field(rule, key, text);
  const QuantSpec spec = resolve(rule);
  CHECK(spec.options.levels == 8);
  CHECK(spec.group == 64);
  CHECK(spec.coder == CoderChoice::rans);
  CHECK(spec.level_type == LevelType::f32);
  const auto says = [&](const char* key, const char* text, const char* words) {
    CAPTURE(key, text);
    REQUIRE_THROWS_WITH(set_field(rule, key, text), Contains(words));
  };
  says("level_type", "bf16", R"(--level-type: found "bf16", allowed are "f32", "f16")");
  says("levels", "many", R"(--levels: found "many", allowed is a whole number, 2..256)");
  says("levels", "1.5", "--levels: found 1.5");
  says("levels", "nan", R"(--levels: found "nan")");
  says("granularity", "rows", R"((did you mean "row"?))");
  says("bit", "4", R"(unknown key "bit", known are)");
}
