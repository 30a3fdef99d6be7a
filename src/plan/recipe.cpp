#include "lmq/plan/recipe.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/base/words.hpp"
#include "lmq/quant/gram_use.hpp"
#include "lmq/quant/layer_methods.hpp"
#include "recipe_words.hpp"
#include "rule_use.hpp"

namespace lmq {
namespace {

using Json = nlohmann::json;  // objects are sorted by key

template <class T, std::size_t N>
std::string_view word_for(const std::array<Word<T>, N>& words, T value) noexcept {
  for (const auto& word : words)
    if (word.value == value) return word.name;
  return "?";
}

template <class T>
void check_range(const std::optional<T>& value, std::uint64_t low, std::uint64_t high, const Rule& rule,
                 std::string_view field) {
  if (value && (*value < low || *value > high))
    fail(Errc::usage, fmt::format("{}: found {}, allowed are {}..{}", field_of(rule, field), *value, low, high));
}

const QuantizerEntry& method_entry(const Rule& rule) {
  const std::string method = rule.method.value_or(std::string(kDefaultMethod));
  for (const QuantizerEntry& entry : quantizers())
    if (entry.name == method) return entry;
  fail(Errc::usage, fmt::format("{}: found {}, allowed are {}", field_of(rule, "method"), in_quotes(method),
                                one_of(method_names(), method)));
}

/// A number that is meant as a whole one: its 64 bits, or nothing.
std::optional<std::uint64_t> whole_of(const SaidValue& value) {
  if (const auto* whole = std::get_if<std::uint64_t>(&value)) return *whole;
  const auto* number = std::get_if<double>(&value);
  if (number == nullptr || !(*number >= 0 && *number < 0x1p64) || *number != std::floor(*number)) return std::nullopt;
  return static_cast<std::uint64_t>(*number);
}

std::optional<double> number_of(const SaidValue& value) {
  if (const auto* whole = std::get_if<std::uint64_t>(&value)) return static_cast<double>(*whole);
  const auto* number = std::get_if<double>(&value);
  return number != nullptr ? std::optional(*number + 0.0) : std::nullopt;
}

std::string shown(const SaidValue& value) {
  if (const auto* word = std::get_if<std::string>(&value)) return in_quotes(*word);
  if (const auto* whole = std::get_if<std::uint64_t>(&value)) return fmt::format("{}", *whole);
  return fmt::format("{}", std::get<double>(value));
}

/// The value of an option as methods read it. Errc::usage unless it is allowed.
OptionValue option_value(const MethodOption& known, const SaidValue& value, const Rule& rule) {
  const auto refuse = [&](const std::string& allowed) {
    fail(Errc::usage, fmt::format("{}: found {}, allowed {}", field_of(rule, known.name), shown(value), allowed));
  };
  if (!known.words.empty()) {
    const std::vector<std::string_view> words(known.words.begin(), known.words.end());
    const auto* word = std::get_if<std::string>(&value);
    const auto at = word != nullptr ? std::ranges::find(words, *word) : words.end();
    if (at == words.end()) refuse("are " + one_of(words, word != nullptr ? *word : ""));
    return OptionWord{static_cast<std::uint8_t>(at - words.begin())};
  }
  const auto within = [&]<class T>(const std::optional<T>& number, std::string_view what) -> OptionValue {
    const T low = std::get<T>(known.low), high = std::get<T>(known.high);
    if (!number || !(*number >= low && *number <= high)) refuse(fmt::format("is a {}, {} to {}", what, low, high));
    return *number;
  };
  return known.whole() ? within(whole_of(value), "whole number") : within(number_of(value), "number");
}

QuantizerOptions method_values(const QuantizerEntry& method, const Rule& rule) {
  QuantizerOptions options{rule.levels.value_or(kDefaultLevels)};
  for (const MethodOption& known : method.options) {
    const auto found = rule.options.find(std::string(known.name));
    options.values.push_back(found == rule.options.end() ? known.fallback : option_value(known, found->second, rule));
  }
  for (const auto& [key, value] : rule.options)
    if (std::ranges::find(method.options, key, &MethodOption::name) == method.options.end())
      fail(Errc::usage, fmt::format("{}: method \"{}\" has no such option (methods that have it: {})",
                                    field_of(rule, key), method.name, methods_with_option(key)));
  try {
    if (method.complete) method.complete(options, rule.levels.has_value());
  } catch (const Error& error) {
    const std::string place = rule.place.command_line ? "--method" : place_of(rule) + ": method";
    fail(error.code, fmt::format("{} \"{}\": {}", place, method.name, error.what()));
  }
  return options;
}

void put_options(const QuantizerEntry& method, const QuantizerOptions& options, Json& out) {
  for (std::size_t i = 0; i < method.options.size(); ++i) {
    const MethodOption& known = method.options[i];
    const OptionValue value = option_at(method.options, options, i);
    Json& field = out[std::string(known.name)];
    if (const auto* word = std::get_if<OptionWord>(&value)) field = known.words[word->index];
    if (const auto* whole = std::get_if<std::uint64_t>(&value)) field = *whole;
    if (const auto* number = std::get_if<double>(&value)) field = *number;
    if (field.is_null()) out.erase(std::string(known.name));
  }
}

void check_keep(const Rule& rule) {
  const std::pair<std::string_view, bool> fields[] = {
      {"method", rule.method.has_value()},    {"levels", rule.levels.has_value()},
      {"group", rule.group.has_value()},      {"granularity", rule.granularity.has_value()},
      {"coder", rule.coder.has_value()},      {"level_type", rule.level_type.has_value()},
      {"row_axes", rule.row_axes.has_value()}};
  for (const auto& [field, set] : fields)
    if (set || !rule.options.empty())
      fail(Errc::usage, fmt::format("{}: what is kept has no {} (\"keep\" stands alone)", place_of(rule),
                                    !set                ? rule.options.begin()->first
                                    : field == "levels" ? "bits or levels"
                                                        : field));
}

/// Methods that see layers have no codebooks to share or to round, and a coder of their own.
void check_layer(const Rule& rule, QuantSpec& spec) {
  const auto refuse = [&](std::string_view field, std::string_view found) {
    fail(Errc::usage,
         fmt::format("{}: found {}, but method \"{}\" sees whole layers and has no codebooks: leave it out",
                     field_of(rule, field), found, find_quantizer(spec.method)->name));
  };
  if (rule.granularity.value_or(Granularity::row) != Granularity::row)
    refuse("granularity", in_quotes(name(spec.granularity)));
  if (rule.coder.value_or(CoderChoice::cheapest) != CoderChoice::cheapest)
    refuse("coder", in_quotes(name(*rule.coder)));
  spec.granularity = Granularity::row;
  spec.group = 0;
}

Json canonical_rule(const Rule& rule, bool budgeted) {
  const QuantSpec spec = resolve(rule);
  Json out{{"match", rule.match}};
  if (rule.optional) out["optional"] = true;
  if (rule.keep) {
    out["keep"] = true;
    return out;
  }
  out.update({{"method", rule.method.value_or(std::string(kDefaultMethod))},
              {"levels", spec.options.levels},
              {"granularity", name(spec.granularity)},
              {"level_type", name(spec.level_type)},
              {"coder", name(spec.coder)}});
  put_options(*find_quantizer(spec.method), spec.options, out);
  if (budgeted) {  // the budget says these
    out.erase("levels");
    for (const MethodOption* known : method_options())
      if (known->sets_rate) out.erase(std::string(known->name));
  }
  if (spec.granularity == Granularity::group) out["group"] = spec.group;
  if (rule.row_axes) out["row_axes"] = *rule.row_axes;
  return out;
}

}  // namespace

std::string one_of(const std::vector<std::string_view>& allowed, std::string_view found) {
  std::string text;
  for (const std::string_view word : allowed) text += fmt::format("{}\"{}\"", text.empty() ? "" : ", ", word);
  const std::string near = nearest(found, allowed);
  return near.empty() ? text : fmt::format("{} (did you mean \"{}\"?)", text, near);
}

std::vector<std::string_view> method_names() {
  std::vector<std::string_view> names;
  for (const QuantizerEntry& entry : quantizers()) names.push_back(entry.name);
  return names;
}

std::vector<const MethodOption*> method_options() {
  std::vector<const MethodOption*> all;
  for (const QuantizerEntry& entry : quantizers())
    for (const MethodOption& known : entry.options)
      if (std::ranges::find(all, known.name, &MethodOption::name) == all.end()) all.push_back(&known);
  return all;
}

std::string methods_with_option(std::string_view name) {
  std::string names;
  for (const QuantizerEntry& entry : quantizers())
    if (std::ranges::find(entry.options, name, &MethodOption::name) != entry.options.end())
      names += (names.empty() ? "" : ", ") + std::string(entry.name);
  return names;
}

bool matches_all(std::string_view pattern) noexcept {
  return !pattern.empty() && pattern.find_first_not_of('*') == pattern.npos;
}

std::string in_quotes(std::string_view text) {
  constexpr std::size_t kLongest = 80;
  const bool cut = text.size() > kLongest;
  return Json(text.substr(0, kLongest)).dump(-1, ' ', true, Json::error_handler_t::replace) + (cut ? "..." : "");
}

std::string_view name(Granularity granularity) noexcept { return word_for(kGranularityWords, granularity); }
std::string_view name(LevelType type) noexcept { return word_for(kLevelTypeWords, type); }
std::string_view name(CoderChoice coder) noexcept { return word_for(kCoderWords, coder); }
std::string_view name(Allocation allocation) noexcept { return word_for(kAllocationWords, allocation); }

bool sets_rate(const Rule& rule) {
  if (rule.levels) return true;
  return std::ranges::any_of(method_options(), [&](const MethodOption* known) {
    return known->sets_rate && rule.options.contains(std::string(known->name));
  });
}

/// Options of the rule that no default method for levels has; empty: none.
static std::vector<std::string_view> options_of_layers(const Rule& rule) {
  const auto has = [](const QuantizerEntry& entry, std::string_view option) {
    return std::ranges::find(entry.options, option, &MethodOption::name) != entry.options.end();
  };
  std::vector<std::string_view> names;
  for (const auto& [name, value] : rule.options)
    if (!has(find_quantizer(kDefaultMethod), name) && !has(find_quantizer(kBudgetMethod), name)) names.push_back(name);
  return names;
}

Rule with_method(Rule rule, bool budgeted, Allocation allocation) {
  if (rule.keep || rule.method) return rule;
  if (const std::vector<std::string_view> names = options_of_layers(rule); !names.empty())
    if (const QuantizerEntry* const method = layer_method(names)) {
      rule.method = method->name;
      return rule;
    }
  const bool shared = rule.granularity.value_or(Granularity::tensor) <= Granularity::tensor;
  rule.method = kDefaultMethod;
  if (allocation != Allocation::slope && !sets_rate(rule)) {
    rule.method = kWidthMethod;
    return rule;
  }
  const bool priced = (budgeted && !sets_rate(rule)) || (rule.options.contains("rate") && !rule.levels);
  if (!priced || !shared) return rule;
  rule.method = kBudgetMethod;
  rule.options.try_emplace("cuts", std::string(kBudgetCuts));
  return rule;
}

void check_allocation(Allocation allocation, const std::optional<Target>& target, const std::string& option,
                      const std::string& bits) {
  if (allocation == Allocation::slope) return;
  if (!target)
    fail(Errc::usage, fmt::format("{} {}: says how a size is shared out, but none is given: say bits or a size, too",
                                  option, name(allocation)));
  if (target->bytes == 0 && !(target->bits >= 1 && target->bits <= static_cast<double>(kMaxBits)))
    fail(Errc::usage,
         fmt::format("{} {}: a number from 1 to {} is expected with bit allocation {}: widths are whole bits", bits,
                     target->bits, kMaxBits, name(allocation)));
}

void tell_samples(Recipe& recipe, double samples) {
  if (!(samples >= 1)) return;
  for (Rule& rule : recipe.rules) {
    const auto method = std::ranges::find(quantizers(), rule.method.value_or(""), &QuantizerEntry::name);
    if (method == quantizers().end()) continue;
    if (std::ranges::find(method->options, "samples", &MethodOption::name) != method->options.end())
      rule.options.try_emplace("samples", samples);
  }
}

std::string place_of(const Rule& rule) {
  if (rule.place.command_line) return "the command line";
  return rule.place.text.empty() ? fmt::format("rule {}", in_quotes(rule.match)) : rule.place.text;
}

std::string field_of(const Rule& rule, std::string_view field) {
  const std::string place = place_of(rule);
  if (!rule.place.command_line) return fmt::format("{}{}{}", place, place.starts_with("--") ? ": " : ".", field);
  std::string option = fmt::format("--{}", field);
  std::ranges::replace(option, '_', '-');
  return option;
}

QuantSpec resolve(const Rule& rule) {
  if (rule.match.empty())
    fail(Errc::usage, fmt::format("{}: found \"\", allowed is a pattern such as \"*\"", field_of(rule, "match")));
  if (rule.keep) {
    check_keep(rule);
    return {};
  }
  QuantSpec spec;
  const QuantizerEntry& method = method_entry(rule);
  spec.method = method.id;
  check_range(rule.levels, kMinLevels, kMaxLevels, rule, "levels");
  check_range(rule.group, kMinGroup, kMaxGroup, rule, "group");
  check_range(rule.row_axes, 0, kMaxRank, rule, "row_axes");
  spec.options = method_values(method, rule);
  const Traits traits = traits_of(spec);
  spec.granularity = rule.granularity.value_or(looks_at_gram(traits) ? Granularity::row : Granularity::tensor);
  const bool grouped = spec.granularity == Granularity::group;
  if (rule.group && !grouped)
    fail(Errc::usage, fmt::format("{}: found {} with granularity \"{}\", allowed only with granularity \"group\"",
                                  field_of(rule, "group"), *rule.group, name(spec.granularity)));
  spec.group = grouped ? rule.group.value_or(kDefaultGroup) : 0;
  if (traits.sees == Sees::layer) check_layer(rule, spec);
  const bool shared = spec.granularity == Granularity::model || spec.granularity == Granularity::tensor;
  if (shared && looks_at_gram(traits) && !traits.grid)
    fail(Errc::usage, fmt::format("{}: found {}, but here method \"{}\" looks at rows: allowed are \"row\", \"group\"",
                                  field_of(rule, "granularity"), in_quotes(name(spec.granularity)), method.name));
  if (shared && traits.sees != Sees::values && !traits.grid)
    fail(Errc::usage,
         fmt::format("{}: factors of rows and columns want granularity \"row\" or \"group\"", field_of(rule, "scale")));
  spec.level_type = rule.level_type.value_or(shared ? LevelType::f32 : LevelType::f16);
  spec.coder = rule.coder.value_or(CoderChoice::cheapest);
  return spec;
}

double importance_power(double wanted, const std::string& place) {
  const double taken = std::round(std::ldexp(wanted, 24)) * 0x1p-24;
  if (!(taken > 0 && taken <= 2))
    fail(Errc::usage, fmt::format("{}: found {}, allowed is a number above 0, at most 2 (1: as it is, 0.5: its root)",
                                  place, wanted));
  return taken;
}

std::vector<Rule> default_rules() {
  std::vector<Rule> rules;
  // Dense layers also have gates ("gate_proj", "attention.gate"): a plain "gate" is a router only inside these blocks.
  for (const char* pattern : {"router.*", "*.router.*", "*moe.gate.*", "*.mlp.gate.*", "*.ffn.gate.*",
                              "*.feed_forward.gate.*", "*.mixer.gate.*", "*.shared_expert_gate.*", "*.ffn_gate_inp*"})
    rules.push_back({.match = pattern, .keep = true, .place = {.text = kBuiltIn}});
  return rules;
}

Recipe default_recipe() { return {.rules = default_rules()}; }

Recipe one_rule(Rule rule) {
  (void)resolve(rule);
  Recipe recipe = default_recipe();
  recipe.rules.push_back(std::move(rule));
  return recipe;
}

std::string Recipe::canonical_json() const {
  Json list = Json::array();
  bool complete = false;
  for (const Rule& rule : rules) {
    list.push_back(canonical_rule(rule, target && !sets_rate(rule)));
    if ((complete = matches_all(rule.match))) {
      list.back()["match"] = "*";
      break;
    }
  }
  if (!complete) list.push_back(canonical_rule(with_method({}, target.has_value(), allocation), target.has_value()));
  Json out{{"version", 1},
           {"min_elements", min_elements},
           {"keep_vectors", keep_vectors},
           {"nonfinite", word_for(kNonfiniteWords, nonfinite)},
           {"rules", std::move(list)}};
  if (fp8 != Fp8::refuse) out["fp8"] = word_for(kFp8Words, fp8);
  out["importance_damping"] = importance_damping;
  if (importance_power) out["importance_power"] = *importance_power;
  if (allocation != Allocation::slope) out["bit_allocation"] = name(allocation);
  if (target && target->bytes > 0) out["target_bytes"] = target->bytes;
  if (target && target->bytes == 0) out["target_bits"] = target->bits;
  return out.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace lmq
