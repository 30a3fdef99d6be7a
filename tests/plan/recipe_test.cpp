#include <catch2/catch.hpp>
#include <random>
#include <set>

#include "lmq/base/error.hpp"
#include "lmq/plan/recipe.hpp"

using namespace lmq;
using Catch::Matchers::Contains;

namespace {

/// The message of the usage error that parsing must give.
std::string refusal(const std::string& text) {
  try {
    (void)Recipe::parse(text, "r.json");
  } catch (const Error& error) {
    REQUIRE(error.code == Errc::usage);
    const std::string what = error.what();
    REQUIRE(what.rfind("r.json: ", 0) == 0);
    REQUIRE(what.find('\n') == what.npos);
    REQUIRE(what.size() < 800);
    return what;
  }
  FAIL("accepted: " << text);
  return {};
}

std::string canonical(const std::string& text) { return Recipe::parse(text, "r.json").canonical_json(); }

std::string with_rule(const std::string& fields) { return R"({"rules":[{"match":"*")" + fields + "}]}"; }

/// Glob by its definition, exponential: no sets, no escapes.
bool slow_glob(std::string_view pattern, std::string_view name) {
  if (pattern.empty()) return name.empty();
  if (pattern[0] == '*')
    return slow_glob(pattern.substr(1), name) || (!name.empty() && slow_glob(pattern, name.substr(1)));
  return !name.empty() && (pattern[0] == '?' || pattern[0] == name[0]) && slow_glob(pattern.substr(1), name.substr(1));
}

}  // namespace

TEST_CASE("recipe: the full example parses to what it says", "[plan][recipe]") {
  const Recipe recipe =
      Recipe::parse(R"({"version":1,"nonfinite":"keep","min_elements":4096,"keep_vectors":false,"rules":[
    {"match":"*embed*","bits":6},
    {"match":"*router*","keep":true},
    {"match":"*","method":"uniform","levels":17,"granularity":"group","group":64,"coder":"rans","level_type":"f32","row_axes":2}]})",
                    "r.json");
  REQUIRE(recipe.nonfinite == Recipe::Nonfinite::keep);
  REQUIRE(recipe.min_elements == 4096);
  REQUIRE_FALSE(recipe.keep_vectors);
  REQUIRE(recipe.rules.size() == 3);
  REQUIRE(recipe.rules[0].levels == 64u);
  REQUIRE(recipe.rules[0].method == "kmeans");
  REQUIRE(recipe.rules[1].keep);
  const QuantSpec spec = resolve(recipe.rules[2]);
  REQUIRE(spec.method == find_quantizer("uniform").id);
  REQUIRE(spec.options.levels == 17);
  REQUIRE(spec.granularity == Granularity::group);
  REQUIRE(spec.group == 64);
  REQUIRE(spec.coder == CoderChoice::rans);
  REQUIRE(spec.level_type == LevelType::f32);
  REQUIRE(recipe.rules[2].row_axes == 2u);
}

TEST_CASE("recipe: defaults are k-means, 16 levels, one codebook a tensor; f16 levels for rows and groups",
          "[plan][recipe]") {
  const QuantSpec spec = resolve({});
  REQUIRE(spec.method == find_quantizer("kmeans").id);
  REQUIRE(spec.options.levels == 16);
  REQUIRE(spec.granularity == Granularity::tensor);
  REQUIRE(spec.group == 0);
  REQUIRE(spec.level_type == LevelType::f32);
  REQUIRE(spec.coder == CoderChoice::cheapest);
  const auto level_type = [](Granularity g) { return resolve({.granularity = g}).level_type; };
  REQUIRE(level_type(Granularity::model) == LevelType::f32);
  REQUIRE(level_type(Granularity::row) == LevelType::f16);
  REQUIRE(level_type(Granularity::group) == LevelType::f16);
  REQUIRE(resolve({.granularity = Granularity::group}).group == 128);
}

TEST_CASE("recipe: a rule that shares in a target and names no method takes plain steps, but for rows and groups",
          "[plan][recipe]") {
  const auto method = [](const std::string& rule) {
    return *Recipe::parse(R"({"target_bits":4,"rules":[{"match":"*")" + rule + "}]}", "r.json").rules[0].method;
  };
  REQUIRE(method("") == "ecsq-uniform");
  REQUIRE(method(R"(,"granularity":"model")") == "ecsq-uniform");
  REQUIRE(method(R"(,"granularity":"row")") == "kmeans");
  REQUIRE(method(R"(,"group":32,"granularity":"group")") == "kmeans");
  REQUIRE(method(R"(,"levels":8)") == "kmeans");
  REQUIRE(method(R"(,"method":"ecsq")") == "ecsq");
  REQUIRE(method(R"(,"rate":2.5)") == "ecsq-uniform");
  const Recipe recipe = Recipe::parse(R"({"target_bits":4})", "r.json");
  REQUIRE(recipe.canonical_json() == Recipe::parse(recipe.canonical_json(), "again").canonical_json());
  REQUIRE_THAT(recipe.canonical_json(), Contains(R"("cuts":"plain")"));
}

TEST_CASE("recipe: a size is shared out in widths where that is asked for, by a method with levels", "[plan][recipe]") {
  const Recipe recipe = Recipe::parse(R"({"target_bits":4,"bit_allocation":"exact"})", "r.json");
  REQUIRE(recipe.allocation == Allocation::exact);
  REQUIRE(recipe.canonical_json() == Recipe::parse(recipe.canonical_json(), "again").canonical_json());
  REQUIRE_THAT(recipe.canonical_json(), Contains(R"("bit_allocation":"exact")") && Contains(R"("method":"learned")"));
  REQUIRE(canonical(R"({"target_bits":4,"bit_allocation":"slope"})") == canonical(R"({"target_bits":4})"));
  REQUIRE(canonical(R"({"target_bits":4,"bit_allocation":"uniform"})") != recipe.canonical_json());
  CHECK_THAT(refusal(R"({"bit_allocation":"exact"})"), Contains("r.json: bit_allocation exact: says how a size"));
  CHECK_THAT(refusal(R"({"target_bits":4,"bit_allocation":"best"})"), Contains(R"(found "best", allowed are "slope")"));
  for (const char* bits : {"0.99", "8.01", "64"})
    CHECK_THAT(refusal(R"({"bit_allocation":"uniform","target_bits":)" + std::string(bits) + "}"),
               Contains("r.json: target_bits ") && Contains("a number from 1 to 8"));
}

TEST_CASE("recipe: importance is damped by its mean unless the recipe says otherwise", "[plan][recipe]") {
  REQUIRE(Recipe::parse("{}", "r.json").importance_damping == 1);
  REQUIRE(Recipe::parse(R"({"importance_damping":0})", "r.json").importance_damping == 0);
  REQUIRE(canonical(R"({"importance_damping":0.25})") != canonical("{}"));
  REQUIRE_THROWS_WITH(Recipe::parse(R"({"importance_damping":-1})", "r.json"), Contains("importance_damping"));
}

TEST_CASE("recipe: a seed keeps all 64 bits", "[plan][recipe]") {
  const auto seed = [](const std::string& text) {
    const Recipe recipe = Recipe::parse(with_rule(R"(,"method":"asq","seed":)" + text), "r.json");
    REQUIRE_THAT(recipe.canonical_json(), Contains("\"seed\":" + text));
    return find_quantizer("asq").make(resolve(recipe.rules[0]).options)->traits().seed;
  };
  REQUIRE(seed("0") == 0);
  REQUIRE(seed("9007199254740993") == 9007199254740993u);  // 2^53 + 1
  REQUIRE(seed("9223372036854775809") == 9223372036854775809u);
  REQUIRE(seed("18446744073709551615") == ~std::uint64_t{0});
  const auto same = [](const char* number) {
    return canonical(with_rule(R"(,"method":"asq","seed":)" + std::string(number)));
  };
  REQUIRE(same("1000") == same("1e3"));
  REQUIRE(same("0") == same("-0.0"));
  for (const char* wrong : {"18446744073709551616", "-1", "1.5", "1e300"})
    REQUIRE_THROWS_WITH(seed(wrong), Contains("seed: found") && Contains("a whole number, 0 to 18446744073709551615"));
}

TEST_CASE("recipe: equal recipes have equal canonical text, different ones different text", "[plan][recipe]") {
  const std::string text = canonical("{}");
  REQUIRE(text == default_recipe().canonical_json());
  REQUIRE(text == canonical(R"( { "version" : 1, "keep_vectors":true, "nonfinite":"refuse", "min_elements":1024 } )"));
  REQUIRE(text == one_rule({}).canonical_json());
  REQUIRE(text == one_rule({.levels = 16, .granularity = Granularity::tensor}).canonical_json());

  REQUIRE(canonical(R"({"rules":[]})") == canonical(with_rule("")));
  REQUIRE(canonical(with_rule("")) ==
          canonical(with_rule(R"(,"bits":4,"coder":"cheapest","method":"kmeans","keep":false)")));
  REQUIRE(canonical(with_rule("")) ==
          canonical(with_rule(R"(,"levels":16,"level_type":"f32","granularity":"tensor")")));
  REQUIRE(canonical(with_rule("")) == canonical(R"({"rules":[{"match":"***"}]})"));
  REQUIRE(canonical(with_rule(R"(,"granularity":"group")")) ==
          canonical(with_rule(R"(,"group":128,"level_type":"f16","granularity":"group")")));
  Recipe dead = Recipe::parse(with_rule(""), "r.json");
  dead.rules.push_back({.match = "a", .keep = true});  // behind a rule that takes everything
  REQUIRE(dead.canonical_json() == canonical(with_rule("")));

  const std::set<std::string> different{text,
                                        canonical(R"({"rules":[]})"),
                                        canonical(with_rule(R"(,"bits":3)")),
                                        canonical(with_rule(R"(,"levels":15)")),
                                        canonical(with_rule(R"(,"method":"uniform")")),
                                        canonical(with_rule(R"(,"granularity":"row")")),
                                        canonical(with_rule(R"(,"granularity":"group")")),
                                        canonical(with_rule(R"(,"granularity":"group","group":64)")),
                                        canonical(with_rule(R"(,"coder":"fixed")")),
                                        canonical(with_rule(R"(,"level_type":"f16")")),
                                        canonical(with_rule(R"(,"row_axes":1)")),
                                        canonical(with_rule(R"(,"keep":true)")),
                                        canonical(R"({"rules":[{"match":"a","keep":true}]})"),
                                        canonical(R"({"min_elements":1})"),
                                        canonical(R"({"nonfinite":"keep"})"),
                                        canonical(R"({"keep_vectors":false})")};
  REQUIRE(different.size() == 16);
  for (const std::string& one : different) REQUIRE(canonical(one) == one);
}

// More than 40 lines: a list of mistakes and what is said of each.
TEST_CASE("recipe: every mistake is refused in one line with its place and what is allowed", "[plan][recipe]") {
  const auto says = [](const std::string& text, const std::string& part) {
    CAPTURE(text);
    CHECK_THAT(refusal(text), Contains(part));
  };
  says("", "not a JSON text");
  says("{\"rules\":[}", "line 1, column");
  says("{} x", "not a JSON text");
  says("[1]", "found a list of 1");
  says("3", "found 3");
  says(R"({"version":2})", R"(r.json: version: found 2, allowed is a whole number, 1..1)");
  says(R"({"version":2,"novelty":1})", "version: found 2");
  says(R"({"version":"1"})", "version: found \"1\"");
  says(R"({"nonfinite":"drop"})", R"(nonfinite: found "drop", allowed are "refuse", "keep")");
  says(R"({"min_elements":-1})", "min_elements: found -1");
  says(R"({"min_elements":1e3})", "min_elements: found 1000.0");
  says(R"({"min_elements":99999999999999999999})", "min_elements");
  says(R"({"min_elements":1e999})", "not a JSON text");
  says(R"({"keep_vectors":1})", "keep_vectors: found 1, allowed are true and false");
  says(
      R"({"rule":[]})",
      R"(unknown key "rule", known are "version", "nonfinite", "min_elements", "keep_vectors", "importance_power", "importance_damping", "rules", "target_bits", "target_bytes", "fp8", "bit_allocation" (did you mean "rules"?))");
  says(R"({"rules":{}})", "rules: found an object of 0 keys, allowed is a list of rules");
  says(R"({"rules":[7]})", "rules[0]: found 7");
  says(R"({"rules":[{"bits":4}]})", R"(rules[0]: the key "match" is missing)");
  says(R"({"rules":[{"match":""}]})", "rules[0].match: found \"\"");
  says(R"({"rules":[{"match":3}]})", "rules[0].match: found 3");
  says(R"({"rules":[{"match":"a"},{"match":"b"},{"match":"*","granularity":"rows"}]})",
       R"(rules[2].granularity: found "rows", allowed are "model", "tensor", "row", "group" (did you mean "row"?))");
  says(R"({"rules":[{"match":"*"},{"match":"a"}]})", "rules[1]: never applies, because rules[0] matches every tensor");
  says(with_rule(R"(,"bit":4)"), R"(rules[0]: unknown key "bit", known are "match", "keep",)");
  says(with_rule(R"(,"bit":4)"), R"((did you mean "bits"?))");
  says(with_rule(R"(,"zzz\nzzz\u0000":4)"), R"(unknown key "zzz\nzzz\u0000", known are)");
  says(with_rule(R"(,"bits":4,"levels":16)"), R"(rules[0]: "bits" and "levels")");
  says(with_rule(R"(,"bits":0)"), "rules[0].bits: found 0, allowed is a whole number, 1..8");
  says(with_rule(R"(,"bits":9)"), "rules[0].bits: found 9");
  says(with_rule(R"(,"bits":"4")"), "rules[0].bits: found \"4\"");
  says(with_rule(R"(,"bits":null)"), "rules[0].bits: found null");
  says(with_rule(R"(,"levels":1)"), "rules[0].levels: found 1, allowed is a whole number, 2..256");
  says(with_rule(R"(,"levels":257)"), "rules[0].levels: found 257");
  says(with_rule(R"(,"group":64)"), R"(rules[0].group: found 64 with granularity "tensor")");
  says(with_rule(R"(,"granularity":"row","group":64)"), R"(rules[0].group: found 64 with granularity "row")");
  says(with_rule(R"(,"granularity":"group","group":7)"),
       "rules[0].group: found 7, allowed is a whole number, 8..65536");
  says(with_rule(R"(,"granularity":"group","group":65537)"), "rules[0].group: found 65537");
  says(with_rule(R"(,"method":"kmean")"), R"(rules[0].method: found "kmean", allowed are)");
  says(with_rule(R"(,"method":"kmean")"), R"((did you mean "kmeans"?))");
  says(with_rule(R"(,"coder":"zip")"),
       R"(rules[0].coder: found "zip", allowed are "cheapest", "fixed", "rans", "huffman")");
  says(with_rule(R"(,"level_type":"f64")"), R"(rules[0].level_type: found "f64", allowed are "f32", "f16")");
  says(with_rule(R"(,"row_axes":33)"), "rules[0].row_axes: found 33");
  says(with_rule(R"(,"keep":"yes")"), "rules[0].keep: found \"yes\"");
  says(with_rule(R"(,"keep":true,"bits":4)"), "rules[0]: what is kept has no bits or levels");
  says(R"({"min_elements":1,"min_elements":1})", "min_elements: the key is given twice");
  says(R"({"rules":[{"match":"a"},{"match":"b","keep":true,"match":"b"}]})", "rules[1].match: the key is given twice");
  says(std::string(100000, '['), "nested deeper than 8 levels");
  says("{\"rules\":[{\"match\":\"" + std::string(2000, 'a') + "\"}]}", "a pattern of 2000 bytes");
}

TEST_CASE("recipe: a rule made by the program is checked like one from a file", "[plan][recipe]") {
  REQUIRE_THROWS_WITH(one_rule({.levels = 1000}), Contains("levels: found 1000, allowed are 2..256"));
  REQUIRE_THROWS_WITH(one_rule({.method = "kmaens"}), Contains("did you mean \"kmeans\"?"));
  REQUIRE_THROWS_WITH(one_rule({.group = 64}), Contains("group: found 64"));
  REQUIRE_THROWS_WITH(one_rule({.granularity = Granularity::group, .group = 1}), Contains("8..65536"));
}

TEST_CASE("recipe: random damage to a recipe is refused or parsed, never more", "[plan][recipe]") {
  const std::string good =
      R"({"version":1,"nonfinite":"refuse","rules":[{"match":"*embed*","bits":6},{"match":"*","granularity":"group","group":128}]})";
  std::mt19937 random(5);
  for (int i = 0; i < 3000; ++i) {
    std::string text = good;
    for (unsigned k = random() % 3; k < 3; ++k) {
      const std::size_t at = random() % text.size();
      if (random() % 2)
        text[at] = static_cast<char>(random() % 256);
      else
        text.erase(at, 1 + random() % 5);
    }
    try {
      const std::string once = canonical(text);
      REQUIRE(canonical(once) == once);
    } catch (const Error& error) {
      REQUIRE(error.code == Errc::usage);
    }
  }
}

TEST_CASE("glob: what each sign matches", "[plan][glob]") {
  const auto yes = [](const char* pattern, const char* name) {
    CAPTURE(pattern, name);
    CHECK(glob_match(pattern, name));
  };
  const auto no = [](const char* pattern, const char* name) {
    CAPTURE(pattern, name);
    CHECK_FALSE(glob_match(pattern, name));
  };
  yes("", ""), no("", "a"), no("a", ""), yes("*", ""), yes("**", "a/b.c"), yes("a*", "a"), no("?", ""), yes("?", "a");
  yes("*.weight", "model/layers.0.weight"), no("*.weight", "model.weights"), no("weight", "a.weight");
  yes("[abc]x", "bx"), no("[abc]x", "dx"), yes("[!abc]x", "dx"), no("[!abc]x", "ax"), no("[abc]", "");
  yes("layers.[0-9].*", "layers.7.w"), no("layers.[0-9].*", "layers.17.w"), yes("layers.1[0-5].*", "layers.13.w");
  yes("[]]", "]"), yes("[!]]", "a"), no("[!]]", "]"), yes("[a-]", "-"), yes("[a-]", "a"), no("[a-]", "b");
  yes("[\\]]", "]"), yes("[\\a-c]", "b"), yes("[!-a]", "b"), no("[!-a]", "-");
  yes("[abc", "[abc"), yes("[", "["), yes("a[*", "a[b"), yes("[!", "[!");
  yes("\\*", "*"), no("\\*", "a"), yes("\\?x", "?x"), yes("\\[a]", "[a]"), yes("\\\\", "\\"), yes("a\\", "a\\");
  yes("?", "\xC3\xA9"), yes("[\xC3\xA0-\xC3\xBF]x", "\xC3\xA9x"), no("??", "\xC3\xA9"), yes("?", "\xF0\x9F\x98\x80");
  yes("*?", "\xE2\x82\xAC"), yes("?", "\xFF"), yes("\xC3*", "\xC3");
  yes("*a*b*c", "xaxbxcxc"), no("*a*b*c", "xbxaxc"), no("Weight", "weight");
}

TEST_CASE("glob: equal to its definition on random patterns and names", "[plan][glob]") {
  std::mt19937 random(3);
  const auto word = [&](std::string_view letters, std::size_t longest) {
    std::string text(random() % (longest + 1), ' ');
    for (char& c : text) c = letters[random() % letters.size()];
    return text;
  };
  int matches = 0;
  for (int i = 0; i < 200000; ++i) {
    const std::string pattern = word("ab*?*", 7), name = word("ab", 9);
    const bool expected = slow_glob(pattern, name);
    matches += expected;
    if (glob_match(pattern, name) != expected) FAIL("'" << pattern << "' on '" << name << "'");
  }
  REQUIRE(matches > 10000);
}

TEST_CASE("glob: many stars take no exponential time", "[plan][glob]") {
  std::string pattern, name(5000, 'a');
  for (int i = 0; i < 500; ++i) pattern += "*a";
  REQUIRE(glob_match(pattern, name));
  REQUIRE_FALSE(glob_match(pattern + "b", name));
  REQUIRE_FALSE(glob_match(pattern + "[b-", name));
}

TEST_CASE("rules: the built-in ones keep the routers of known models and nothing else", "[plan][recipe]") {
  const auto kept = [](std::string_view name) {
    for (const Rule& rule : default_rules())
      if (glob_match(rule.match, name)) return rule.keep;
    return false;
  };
  for (const char* name :
       {"model.layers.0.block_sparse_moe.gate.weight", "model.layers.0.mlp.gate.weight", "layers.3.ffn.gate.weight",
        "model.layers.0.mlp.shared_expert_gate.weight", "model.layers.9.feed_forward.router.weight",
        "model.layers.1.mlp.router.weight", "model.layers.1.block_sparse_moe.router.layer.weight",
        "transformer.blocks.4.ffn.router.layer.weight", "encoder.block.1.layer.1.mlp.router.classifier.weight",
        "model.layers.0.feed_forward.gate.weight", "backbone.layers.7.mixer.gate.weight", "router.weight",
        "model.layers.0.mlp.gate.wg.weight", "blk.0.ffn_gate_inp.weight", "blk.0.ffn_gate_inp_shexp.weight"}) {
    CAPTURE(name);
    CHECK(kept(name));
  }
  for (const char* name :
       {"model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.experts.3.gate_proj.weight", "lm_head.weight",
        "model.layers.0.mlp.experts.gate_up_proj", "blk.0.ffn_gate.weight", "blk.0.ffn_gate_exps.weight",
        "rwkv.blocks.0.attention.gate.weight", "blocks.0.att.gate.weight",
        "model.layers.0.block_sparse_moe.experts.0.w1.weight", "model.embed_tokens.weight",
        "model.layers.0.mlp.shared_expert.gate_proj.weight", "model.layers.0.self_attn.q_proj.weight"}) {
    CAPTURE(name);
    CHECK_FALSE(kept(name));
  }
}
