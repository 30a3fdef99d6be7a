#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/base/words.hpp"
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

/// The words behind the pattern; none of them is empty.
std::vector<std::string> words_of(std::string_view text, const std::string& place) {
  std::vector<std::string> words;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    words.emplace_back(text.substr(begin, end - begin));
    if (words.back().empty()) fail(Errc::usage, fmt::format("{}: nothing stands before or behind a comma", place));
    begin = end + 1;
  }
  return words;
}

[[noreturn]] void refuse_word(const std::string& word, const std::string& place) {
  std::vector<std::string_view> known = method_names();
  known.emplace_back("keep");
  const std::string near = nearest(word, known);
  const std::string_view unit = "0123456789.";
  const bool number_first = word.find_first_not_of(unit) > 0 && is_number(word.substr(0, word.find_first_not_of(unit)));
  const std::string hint = !near.empty()  ? fmt::format("did you mean \"{}\"?", near)
                           : number_first ? std::string("bits are a number alone, fields stand behind commas")
                                          : std::string("lmq methods lists the methods");
  fail(Errc::usage, fmt::format("{}: {} is no number of bits, no method, not keep and no field=value; {}", place,
                                in_quotes(word), hint));
}

/// Which field a word sets: bits and levels say the same thing.
std::string field_said(const std::string& word) {
  const std::size_t at = word.find('=');
  const std::string key = at != word.npos ? word.substr(0, at) : is_number(word) ? "bits" : "method";
  return key == "levels" || key == "rate" ? "bits" : key;
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
  const std::vector<std::string> words = words_of(std::string_view(text).substr(equals + 1), place);
  Rule rule{.place = {.text = place}};
  set_field(rule, "match", text.substr(0, equals));
  const std::vector<std::string_view> methods = method_names();
  const auto is_method = [&](const std::string& word) { return std::ranges::find(methods, word) != methods.end(); };
  const auto keeps = std::ranges::find(words, "keep") != words.end();
  const auto method = std::ranges::find_if(words, is_method);
  if (method != words.end()) set_field(rule, "method", *method);
  if (!keeps) inherit(rule, base, method == words.end());
  std::set<std::string> said;
  for (const std::string& word : words) {
    const std::size_t at = word.find('=');
    if (word != "keep" && at == word.npos && !is_number(word) && !is_method(word)) refuse_word(word, place);
    if (is_method(word) && word != *method)
      fail(Errc::usage, fmt::format("{}: two methods, {} and {}", place, *method, word));
    if (word != "keep" && !said.insert(field_said(word)).second)
      fail(Errc::usage, fmt::format("{}: {} says a second time what a word before it says", place, in_quotes(word)));
    if (word == "keep")
      rule.keep = true;
    else if (is_number(word))
      set_bits(rule, word);
    else if (at != word.npos)
      set_field(rule, word.substr(0, at), word.substr(at + 1));
  }
  if (matches_all(rule.match)) rule.match = "*";
  (void)resolve(rule);
  return rule;
}

}  // namespace lmq
