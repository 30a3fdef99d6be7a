#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "lmq/base/error.hpp"
#include "lmq/base/words.hpp"
#include "lmq/plan/recipe.hpp"
#include "recipe_words.hpp"

namespace lmq {
namespace {

using Json = nlohmann::json;

std::string show(const Json& value) {
  if (value.is_string()) return in_quotes(value.get_ref<const std::string&>());
  if (value.is_array()) return fmt::format("a list of {}", value.size());
  if (value.is_object()) return fmt::format("an object of {}", counted(value.size(), "key"));
  return value.dump();
}

/// A value of the text and where it stands: "r.json: rules[2].bits".
struct Place {
  const Json& value;
  std::string path;

  [[noreturn]] void refuse(const std::string& allowed) const {
    fail(Errc::usage, fmt::format("{}: found {}, allowed {}", path, show(value), allowed));
  }
  [[nodiscard]] bool boolean() const {
    if (!value.is_boolean()) refuse("are true and false");
    return value.get<bool>();
  }
  [[nodiscard]] const std::string& text(const char* what) const {
    if (!value.is_string()) refuse(fmt::format("is {}", what));
    return value.get_ref<const std::string&>();
  }
  [[nodiscard]] std::uint64_t whole(std::uint64_t low, std::uint64_t high) const {
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() < low || value.get<std::uint64_t>() > high)
      refuse(fmt::format("is a whole number, {}..{}", low, high));
    return value.get<std::uint64_t>();
  }
  [[nodiscard]] SaidValue option() const {
    if (value.is_string()) return value.get<std::string>();
    if (!value.is_number()) refuse("is a number or a word");
    if (value.is_number_unsigned()) return value.get<std::uint64_t>();
    return value.get<double>();
  }
  [[nodiscard]] double between(double low, double high) const {
    if (!value.is_number() || !(value.get<double>() >= low && value.get<double>() <= high))
      refuse(fmt::format("is a number, {} to {}", low, high));
    return value.get<double>();
  }
  template <class T, std::size_t N>
  [[nodiscard]] T word(const std::array<Word<T>, N>& words) const {
    std::vector<std::string_view> names;
    for (const auto& word : words) {
      if (value.is_string() && value.get_ref<const std::string&>() == word.name) return word.value;
      names.push_back(word.name);
    }
    refuse("are " + one_of(names, value.is_string() ? std::string_view(value.get_ref<const std::string&>()) : ""));
  }
};

constexpr std::size_t kMaxRules = 65536;

/// Walks over the text before it is parsed and refuses what the finished value no longer shows: a key given twice. Depth
/// is bounded too (a recipe needs 3), since values are later shown and destroyed, and so are lists. A walk of its own:
/// the parser with a callback looks through a list at the end of each of its objects.
class KeyGuard final : public nlohmann::json_sax<Json> {
 public:
  explicit KeyGuard(const std::string& source) : source_(source) {}

  bool null() override { return item(); }
  bool boolean(bool) override { return item(); }
  bool number_integer(std::int64_t) override { return item(); }
  bool number_unsigned(std::uint64_t) override { return item(); }
  bool number_float(double, const std::string&) override { return item(); }
  bool string(std::string&) override { return item(); }
  bool binary(Json::binary_t&) override { return item(); }
  bool start_object(std::size_t) override { return start(false); }
  bool start_array(std::size_t) override { return start(true); }
  bool end_object() override { return frames_.pop_back(), true; }
  bool end_array() override { return frames_.pop_back(), true; }
  bool key(std::string& name) override {
    frames_.back().key = name;
    if (!frames_.back().seen.insert(name).second)
      fail(Errc::usage, fmt::format("{}: {}: the key is given twice", source_, path()));
    return true;
  }
  /// What is no JSON is for the parser to say.
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override { return false; }

 private:
  bool item() {
    if (!frames_.empty() && frames_.back().is_array && ++frames_.back().items > kMaxRules)
      fail(Errc::usage, fmt::format("{}: {}: allowed is a list of at most {} rules", source_, path(), kMaxRules));
    return true;
  }
  bool start(bool is_array) {
    item();
    if (frames_.size() == 8) fail(Errc::usage, fmt::format("{}: nested deeper than 8 levels at {}", source_, path()));
    frames_.push_back({.is_array = is_array});
    return true;
  }
  struct Frame {
    bool is_array = false;
    std::size_t items = 0;
    std::string key = {};
    std::set<std::string> seen = {};
  };
  [[nodiscard]] std::string path() const {
    std::string text;
    for (const Frame& frame : frames_)
      if (frame.is_array)
        text += fmt::format("[{}]", frame.items - (frame.items > 0));
      else
        text += fmt::format("{}{}", text.empty() ? "" : ".", frame.key);
    return text;
  }

  const std::string& source_;
  std::vector<Frame> frames_;
};

/// Calls take(key, place) for each key of an object; take says whether it knew the key.
template <class Take>
void for_each_key(const Place& object, const std::string& prefix, const std::vector<std::string_view>& known,
                  Take take) {
  if (!object.value.is_object()) object.refuse("is an object such as {\"match\": \"*\"}");
  for (const auto& [key, value] : object.value.items())
    if (!take(key, Place{value, prefix + key}))
      fail(Errc::usage,
           fmt::format("{}: unknown key {}, known are {}", object.path, in_quotes(key), one_of(known, key)));
}

std::vector<std::string_view> rule_keys() {
  std::vector<std::string_view> keys{"match", "keep",       "method", "levels",   "bits",    "granularity",
                                     "group", "level_type", "coder",  "row_axes", "optional"};
  for (const MethodOption* known : method_options()) keys.push_back(known->name);
  return keys;
}

const std::vector<std::string_view> kRecipeKeys{
    "version", "nonfinite",   "min_elements", "keep_vectors", "importance_power", "importance_damping",
    "rules",   "target_bits", "target_bytes", "fp8",          "bit_allocation"};

bool take_rule_key(Rule& rule, const std::string& key, const Place& at) {
  constexpr std::size_t kLongestMatch = 1024;
  if (key == "match") {
    rule.match = at.text("a pattern such as \"*embed*\"");
    if (rule.match.size() > kLongestMatch)
      fail(Errc::usage,
           fmt::format("{}: a pattern of {} bytes, allowed are {}", at.path, rule.match.size(), kLongestMatch));
  } else if (key == "keep")
    rule.keep = at.boolean();
  else if (key == "method")
    rule.method = at.text("the name of a method");
  else if (key == "levels")
    rule.levels = at.whole(kMinLevels, kMaxLevels);
  else if (key == "bits")
    rule.levels = std::size_t{1} << at.whole(1, kMaxBits);
  else if (key == "granularity")
    rule.granularity = at.word(kGranularityWords);
  else if (key == "group")
    rule.group = at.whole(kMinGroup, kMaxGroup);
  else if (key == "level_type")
    rule.level_type = at.word(kLevelTypeWords);
  else if (key == "coder")
    rule.coder = at.word(kCoderWords);
  else if (key == "row_axes")
    rule.row_axes = at.whole(0, kMaxRank);
  else if (key == "optional")
    rule.optional = at.boolean();
  else if (!methods_with_option(key).empty())
    rule.options[key] = at.option();
  else
    return false;
  return true;
}

Rule parse_rule(const Place& at) {
  Rule rule;
  rule.place.text = at.path;
  for_each_key(at, at.path + ".", rule_keys(),
               [&](const std::string& key, const Place& place) { return take_rule_key(rule, key, place); });
  if (!at.value.contains("match"))
    fail(Errc::usage, fmt::format("{}: the key \"match\" is missing (\"*\" matches every tensor)", at.path));
  if (at.value.contains("bits") && at.value.contains("levels"))
    fail(Errc::usage,
         fmt::format("{}: \"bits\" and \"levels\" say the same thing, only one of them is allowed", at.path));
  return rule;
}

std::vector<Rule> parse_rules(const Place& at) {
  if (!at.value.is_array()) at.refuse("is a list of rules");
  std::vector<Rule> rules;
  for (std::size_t i = 0; i < at.value.size(); ++i) {
    if (!rules.empty() && matches_all(rules.back().match))
      fail(Errc::usage,
           fmt::format("{}[{}]: never applies, because rules[{}] matches every tensor", at.path, i, i - 1));
    rules.push_back(parse_rule({at.value[i], fmt::format("{}[{}]", at.path, i)}));
  }
  return rules;
}

double exponent(const Place& at) {
  if (!at.value.is_number()) at.refuse("is a number above 0, at most 2");
  return importance_power(at.value.get<double>(), at.path);
}

Json parse_json(std::string_view text, const std::string& source) {
  try {
    KeyGuard guard(source);
    Json::sax_parse(text.begin(), text.end(), &guard);
    return Json::parse(text.begin(), text.end());
  } catch (const Json::exception& error) {
    std::string_view what = error.what();  // "[json.exception.parse_error.101] parse error at line 1, column 2: ..."
    if (const auto end = what.find("] "); end != what.npos) what.remove_prefix(end + 2);
    fail(Errc::usage, fmt::format("{}: not a JSON text: {}", source, what));
  }
}

/// A text as the JSON value it looks like: a number, true, false, or itself.
Json value_of(const std::string& text) {
  const char* const end = text.data() + text.size();
  std::uint64_t whole = 0;
  if (const auto [stop, error] = std::from_chars(text.data(), end, whole); error == std::errc{} && stop == end)
    return whole;
  std::int64_t negative = 0;
  if (const auto [stop, error] = std::from_chars(text.data(), end, negative); error == std::errc{} && stop == end)
    return negative;
  double number = 0;
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error == std::errc{} && stop == end && std::isfinite(number)) return number;
  if (text == "true" || text == "false") return text == "true";
  return text;
}

bool take_key(Recipe& recipe, Target& target, const std::string& key, const Place& at) {
  if (key == "version")
    (void)at.whole(1, 1);
  else if (key == "nonfinite")
    recipe.nonfinite = at.word(kNonfiniteWords);
  else if (key == "fp8")
    recipe.fp8 = at.word(kFp8Words);
  else if (key == "min_elements")
    recipe.min_elements = at.whole(0, std::uint64_t{1} << 62);
  else if (key == "keep_vectors")
    recipe.keep_vectors = at.boolean();
  else if (key == "importance_power")
    recipe.importance_power = at.value.is_null() ? std::nullopt : std::optional(exponent(at));
  else if (key == "importance_damping")
    recipe.importance_damping = at.between(0, kMaxDamping);
  else if (key == "target_bits")
    target.bits = at.between(kMinTargetBits, kMaxTargetBits);
  else if (key == "target_bytes")
    target.bytes = at.whole(1, std::uint64_t{1} << 62);
  else if (key == "bit_allocation")
    recipe.allocation = at.word(kAllocationWords);
  else if (key == "rules")
    recipe.rules = parse_rules(at);
  else
    return false;
  return true;
}

}  // namespace

void set_field(Rule& rule, const std::string& key, const std::string& text) {
  const Json value = value_of(text);
  const Place at{value, field_of(rule, key)};
  if (!take_rule_key(rule, key, at))
    fail(Errc::usage,
         fmt::format("{}: unknown key {}, known are {}", place_of(rule), in_quotes(key), one_of(rule_keys(), key)));
}

Recipe Recipe::parse(std::string_view json, const std::string& source) {
  const Json root = parse_json(json, source);
  Recipe recipe = default_recipe();
  Target target;
  const auto take = [&](const std::string& key, const Place& at) { return take_key(recipe, target, key, at); };
  // A recipe of another version may have other keys: the version is what to complain of.
  if (root.is_object() && root.contains("version")) (void)take("version", Place{root["version"], source + ": version"});
  for_each_key(Place{root, source}, source + ": ", kRecipeKeys, take);
  if (target.bits > 0 && target.bytes > 0)
    fail(Errc::usage, fmt::format("{}: \"target_bits\" and \"target_bytes\" both say how large the file shall be, only "
                                  "one of them is allowed",
                                  source));
  if (target.bits > 0 || target.bytes > 0) recipe.target = target;
  check_allocation(recipe.allocation, recipe.target, source + ": bit_allocation", source + ": target_bits");
  for (std::size_t i = 0; i < recipe.rules.size(); ++i) {
    recipe.rules[i] = with_method(std::move(recipe.rules[i]), recipe.target.has_value(), recipe.allocation);
    (void)resolve(recipe.rules[i]);
  }
  return recipe;
}

}  // namespace lmq
