#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string>

#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/plan/recipe.hpp"
#include "recipe_words.hpp"

namespace lmq {
namespace {

bool is_number(std::string_view text) noexcept {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc{} && end == text.data() + text.size();
}

/// The '=' behind the pattern: the first one that no backslash takes as it is.
std::size_t end_of_pattern(std::string_view text) noexcept {
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '=') return i;
    if (text[i] == '\\') ++i;
  }
  return text.npos;
}

/// A number of bits: of codes where the method spends bits, else 2^bits levels.
void set_bits(Rule& rule, const std::string& bits) {
  const QuantizerEntry& method = find_quantizer(rule.method.value_or(std::string(kDefaultMethod)));
  const bool spends = std::ranges::find(method.options, "rate", &MethodOption::name) != method.options.end();
  set_field(rule, spends ? "rate" : "bits", bits);
}

/// Takes over what `base` says, but how many bits are spent; with another method also not the options of the method.
void inherit(Rule& rule, const Rule& base, bool same_method) {
  rule.granularity = base.granularity;
  rule.group = base.group;
  rule.level_type = base.level_type;
  rule.coder = base.coder;
  if (!same_method) return;
  rule.method = base.method;
  for (const MethodOption* known : method_options())
    if (const auto at = base.options.find(std::string(known->name)); at != base.options.end() && !known->sets_rate)
      rule.options.insert(*at);
}

}  // namespace

Rule tensor_rule(const std::string& text, const Rule& base) {
  const std::size_t equals = end_of_pattern(text);
  const std::string place = fmt::format("--tensor {}", printable(text));
  if (equals == text.npos || equals == 0 || equals + 1 == text.size())
    fail(Errc::usage,
         fmt::format("{}: expected PATTERN=WHAT, such as '*embed*=6', 'lm_head*=keep' or '*.mlp.*=uniform'", place));
  std::vector<std::string> words;
  for (std::size_t begin = equals + 1; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    words.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  Rule rule{.place = {.text = place}};
  set_field(rule, "match", text.substr(0, equals));
  const auto is_method = [](const std::string& word) {
    return word != "keep" && !is_number(word) && word.find('=') == word.npos;
  };
  const auto keeps = std::ranges::find(words, "keep") != words.end();
  const auto method = std::ranges::find_if(words, is_method);
  if (method != words.end()) set_field(rule, "method", *method);
  if (!keeps) inherit(rule, base, method == words.end());
  for (const std::string& word : words) {
    const std::size_t at = word.find('=');
    if (word == "keep")
      rule.keep = true;
    else if (is_number(word))
      set_bits(rule, word);
    else if (at != word.npos)
      set_field(rule, word.substr(0, at), word.substr(at + 1));
    else if (&word != &*method)
      fail(Errc::usage, fmt::format("{}: two methods, '{}' and '{}'", place, *method, printable(word)));
  }
  if (matches_all(rule.match)) rule.match = "*";
  (void)resolve(rule);
  return rule;
}

}  // namespace lmq
