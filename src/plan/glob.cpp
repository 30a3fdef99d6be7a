#include <optional>

#include "lmq/plan/recipe.hpp"

namespace lmq {
namespace {

struct Character {
  char32_t value;
  std::size_t length;
};

/// Character at `at`; a byte that begins no UTF-8 sequence stands for itself, outside Unicode.
Character character(std::string_view text, std::size_t at) noexcept {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(at);
  const std::size_t length = lead < 0x80   ? 1
                             : lead < 0xC2 ? 0
                             : lead < 0xE0 ? 2
                             : lead < 0xF0 ? 3
                             : lead < 0xF5 ? 4
                                           : 0;
  if (length == 1) return {lead, 1};
  if (length == 0 || at + length > text.size()) return {char32_t{0x110000} + lead, 1};
  char32_t value = lead & (0x7Fu >> length);
  for (std::size_t k = 1; k < length; ++k) {
    if ((byte(at + k) & 0xC0) != 0x80) return {char32_t{0x110000} + lead, 1};
    value = value << 6 | (byte(at + k) & 0x3Fu);
  }
  return {value, length};
}

/// Character of a pattern, a backslash taken off; a backslash at the end is itself.
Character unescaped(std::string_view pattern, std::size_t at) noexcept {
  if (pattern[at] != '\\' || at + 1 == pattern.size()) return character(pattern, at);
  const Character next = character(pattern, at + 1);
  return {next.value, next.length + 1};
}

struct SetMatch {
  bool matches;
  std::size_t length;  // of the set in the pattern
};

/// The set "[...]" at `at` against one character; nothing when the set is not closed.
std::optional<SetMatch> match_set(std::string_view pattern, std::size_t at, char32_t value) noexcept {
  std::size_t i = at + 1;
  const bool negated = i < pattern.size() && pattern[i] == '!';
  if (negated) ++i;
  bool inside = false;
  for (const std::size_t first = i; i < pattern.size();) {
    if (pattern[i] == ']' && i != first) return SetMatch{inside != negated, i + 1 - at};
    const Character low = unescaped(pattern, i);
    i += low.length;
    char32_t high = low.value;
    if (i + 1 < pattern.size() && pattern[i] == '-' && pattern[i + 1] != ']') {
      const Character end = unescaped(pattern, i + 1);
      high = end.value;
      i += 1 + end.length;
    }
    inside = inside || (low.value <= value && value <= high);
  }
  return std::nullopt;
}

/// Length in the pattern of the one-character item at `at` when it matches `value`, else 0.
std::size_t match_one(std::string_view pattern, std::size_t at, char32_t value) noexcept {
  if (pattern[at] == '?') return 1;
  if (pattern[at] == '[')
    if (const auto set = match_set(pattern, at, value)) return set->matches ? set->length : 0;
  const Character wanted = unescaped(pattern, at);
  return wanted.value == value ? wanted.length : 0;
}

}  // namespace

// Only the last '*' is ever stretched: whatever an earlier one could take, the later one can take too.
bool glob_match(std::string_view pattern, std::string_view name) noexcept {
  constexpr std::size_t kNone = static_cast<std::size_t>(-1);
  std::size_t p = 0, n = 0, after_star = kNone, stretched = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      after_star = ++p;
      stretched = n;
      continue;
    }
    const Character here = character(name, n);
    const std::size_t taken = p < pattern.size() ? match_one(pattern, p, here.value) : 0;
    if (taken > 0) {
      p += taken;
      n += here.length;
    } else if (after_star != kNone) {
      p = after_star;
      stretched += character(name, stretched).length;
      n = stretched;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

}  // namespace lmq
