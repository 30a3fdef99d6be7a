#include "rule_use.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <string>
#include <string_view>

#include "lmq/base/error.hpp"
#include "recipe_words.hpp"

namespace lmq {
namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

/// A regular expression as a pattern: "re:.*up.*" -> "*up*", "^lm_head\\.weight$" -> "lm_head.weight". Empty for what
/// is none, or says more than a pattern can.
std::string from_regular_expression(std::string_view text) {
  const bool said = text.starts_with("re:");
  if (said) text.remove_prefix(3);
  std::string out;
  bool changed = said;
  const bool from_start = text.starts_with('^'), to_end = text.ends_with('$');
  changed = changed || from_start || to_end;
  text = text.substr(from_start, text.size() - from_start - to_end);
  if (text.find_first_of("()|{}+") != text.npos) return {};
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool repeated = i + 1 < text.size() && text[i + 1] == '*';
    if (text[i] == '.' && repeated)
      out += '*', ++i, changed = true;
    else if (text[i] == '\\' && i + 1 < text.size() && text[i + 1] == '.')
      out += '.', ++i, changed = true;
    else if (text.substr(i).starts_with("\\d"))
      out += i + 2 < text.size() && text[i + 2] == '*' ? "*" : "[0-9]", i += out.back() == '*' ? 2 : 1, changed = true;
    else
      out += text[i];
  }
  return changed ? out : std::string();
}

/// One sign of a pattern, as far as nearness is concerned: a set is like '?'.
struct Sign {
  enum class Kind { literal, any, star } kind = Kind::literal;
  char letter = 0;
};

std::vector<Sign> signs_of(std::string_view pattern) {
  std::vector<Sign> signs;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const std::size_t close = pattern[i] == '[' ? pattern.find(']', i + 2) : pattern.npos;
    if (pattern[i] == '*')
      signs.push_back({Sign::Kind::star});
    else if (pattern[i] == '?')
      signs.push_back({Sign::Kind::any});
    else if (close != pattern.npos)
      signs.push_back({Sign::Kind::any}), i = close;
    else
      signs.push_back({Sign::Kind::literal, pattern[i == pattern.size() - 1 || pattern[i] != '\\' ? i : ++i]});
  }
  return signs;
}

/// Edits (insert, delete, replace a letter) of the pattern until it matches the name.
std::size_t edits_to_match(const std::vector<Sign>& signs, std::string_view name) {
  std::vector<std::size_t> row(name.size() + 1);
  for (std::size_t j = 0; j < row.size(); ++j) row[j] = j;
  for (const Sign& sign : signs) {
    const bool star = sign.kind == Sign::Kind::star;
    std::size_t diagonal = row[0];
    row[0] += star ? 0 : 1;
    for (std::size_t j = 1; j < row.size(); ++j) {
      const std::size_t above = row[j];
      const bool same = sign.kind == Sign::Kind::any || sign.letter == name[j - 1];
      row[j] = star ? std::min(above, row[j - 1]) : std::min({diagonal + !same, above + 1, row[j - 1] + 1});
      diagonal = above;
    }
  }
  return row.back();
}

/// Names that differ in numbers only have the same one.
std::string without_numbers(std::string_view name) {
  std::string text;
  for (const char c : name)
    if (c < '0' || c > '9')
      text += c;
    else if (text.empty() || text.back() != '#')
      text += '#';
  return text;
}

/// "; near are "a" (12 alike), "b"", by edits; empty when none is near.
std::string near_names(std::string_view pattern, const std::vector<TensorInfo>& tensors) {
  constexpr std::size_t kMax = 3, kLongest = 512;
  struct Alike {
    std::string_view first;
    std::size_t edits = 0, names = 0;
  };
  const std::vector<Sign> signs = signs_of(pattern);
  const auto letters = static_cast<std::size_t>(
      std::ranges::count_if(signs, [](const Sign& sign) { return sign.kind == Sign::Kind::literal; }));
  std::map<std::string, Alike> alike;
  for (const TensorInfo& tensor : tensors) {
    if (tensor.name.size() > kLongest) continue;
    const std::size_t edits = edits_to_match(signs, tensor.name);
    if (edits > std::max<std::size_t>(2, letters / 3)) continue;
    Alike& group = alike[without_numbers(tensor.name)];
    if (group.names++ == 0 || edits < group.edits) group.first = tensor.name, group.edits = edits;
  }
  std::vector<Alike> groups;
  for (const auto& [key, group] : alike) groups.push_back(group);
  std::ranges::stable_sort(groups, {}, &Alike::edits);
  std::string text;
  for (std::size_t i = 0; i < std::min(groups.size(), kMax); ++i) {
    text += fmt::format("{}{}", i == 0 ? "; near are " : ", ", in_quotes(groups[i].first));
    if (groups[i].names > 1) text += fmt::format(" ({} alike)", groups[i].names);
  }
  return text;
}

std::uint64_t matches(std::string_view pattern, const std::vector<TensorInfo>& tensors) {
  return static_cast<std::uint64_t>(
      std::ranges::count_if(tensors, [&](const TensorInfo& tensor) { return glob_match(pattern, tensor.name); }));
}

/// The first tensor whose name fits but for large and small letters; empty: none.
std::string_view match_of_any_case(std::string_view pattern, const std::vector<TensorInfo>& tensors) {
  const std::string small = lower(pattern);
  const auto at = std::ranges::find_if(tensors, [&](const TensorInfo& t) { return glob_match(small, lower(t.name)); });
  return at == tensors.end() ? std::string_view() : std::string_view(at->name);
}

/// The pattern for names that hold a match of `pattern`.
std::string anywhere(std::string_view pattern) {
  while (pattern.starts_with('*')) pattern.remove_prefix(1);
  // "\\*" at the end is a star of the name.
  while (pattern.ends_with('*') && !pattern.ends_with("\\*")) pattern.remove_suffix(1);
  return fmt::format("*{}*", pattern);
}

/// What is wrong with a pattern that matches nothing, from the likeliest on; empty: not known.
std::string hint_for(const std::string& pattern, const std::vector<TensorInfo>& tensors) {
  const std::string part = anywhere(pattern);
  if (const std::uint64_t inside = matches(part, tensors); inside > 0)
    return fmt::format("; a pattern is for whole names: {} matches {}", in_quotes(part), inside);
  const std::string meant = from_regular_expression(pattern);
  if (!meant.empty())
    for (const std::string& tried : {meant, anywhere(meant)})
      if (const std::uint64_t found = matches(tried, tensors); found > 0)
        return fmt::format("; patterns are no regular expressions ('*' stands for any text): {} matches {}",
                           in_quotes(tried), found);
  for (const std::string& tried : {pattern, part})
    if (const std::string_view name = match_of_any_case(tried, tensors); !name.empty())
      return fmt::format("; large and small letters differ: it would match {}", in_quotes(name));
  if (pattern.find_first_of("()|$^+") != pattern.npos || pattern.starts_with("re:"))
    return "; patterns are no regular expressions: '*' stands for any text, '?' for one letter, [ab] for one of these; "
           "lmq inspect lists the names";
  return near_names(pattern, tensors);
}

[[noreturn]] void refuse_unmatched(const Rule& rule, const std::vector<TensorInfo>& tensors) {
  std::string hint = hint_for(rule.match, tensors);
  if (hint.empty()) hint = tensors.empty() ? "; the checkpoint has none" : "; lmq inspect lists the names";
  fail(Errc::usage, fmt::format("{}: {} matches no tensor{}", place_of(rule), in_quotes(rule.match), hint));
}

bool is_built_in(const Rule& rule) {
  return rule.keep && std::ranges::any_of(default_rules(), [&](const Rule& one) { return one.match == rule.match; });
}

}  // namespace

void check_rules_match(const std::vector<TensorInfo>& tensors, const Recipe& recipe) {
  for (const Rule& rule : recipe.rules) {
    if (rule.optional || matches_all(rule.match) || is_built_in(rule)) continue;
    const auto match = [&](const TensorInfo& tensor) { return glob_match(rule.match, tensor.name); };
    if (std::ranges::none_of(tensors, match)) refuse_unmatched(rule, tensors);
  }
}

std::vector<std::string> idle_rules(const std::vector<TensorInfo>& tensors, const Recipe& recipe, const Plan& plan) {
  std::vector<bool> decides(recipe.rules.size(), false);
  for (const TensorPlan& tensor : plan.tensors)
    if (tensor.rule >= 0) decides[static_cast<std::size_t>(tensor.rule)] = true;
  std::vector<std::string> lines;
  for (std::size_t r = 0; r < recipe.rules.size(); ++r) {
    const Rule& rule = recipe.rules[r];
    if (decides[r] || matches_all(rule.match) || rule.place.text == kBuiltIn) continue;  // which nobody wrote
    std::size_t matched = 0;
    std::string why;
    for (std::size_t t = 0; t < tensors.size(); ++t) {
      if (!glob_match(rule.match, tensors[t].name)) continue;
      ++matched;
      const std::int64_t by = plan.tensors[t].rule;
      const bool as_wished = rule.keep && plan.tensors[t].treatment == Treatment::keep;
      if (!why.empty() || as_wished) continue;
      why = fmt::format("{} {}", in_quotes(tensors[t].name),
                        by >= 0 ? fmt::format("is decided by {}", place_of(recipe.rules[static_cast<std::size_t>(by)]))
                                : fmt::format("is kept: {}", plan.tensors[t].reason));
    }
    if (!why.empty())
      lines.push_back(fmt::format("{}: {} decides no tensor: of {} it matches, {}", place_of(rule),
                                  in_quotes(rule.match), matched, why));
  }
  return lines;
}

bool rules_say_all_bits(const std::vector<TensorPlan>& tensors, const std::vector<Rule>& rules) {
  const auto said = [&](const TensorPlan& t) {
    return t.treatment == Treatment::quantize || (t.rule >= 0 && rules[static_cast<std::size_t>(t.rule)].keep);
  };
  return std::ranges::none_of(tensors, [](const TensorPlan& t) { return t.spec.budgeted; }) &&
         std::ranges::any_of(tensors, said);
}

}  // namespace lmq
