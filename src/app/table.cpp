#include "table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "lmq/base/text.hpp"

namespace lmq::app {
namespace {

/// "12", "(0.5", "1,024": with the word that follows it is one.
bool is_number(std::string_view word) noexcept {
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  return std::ranges::any_of(word, digit) &&
         std::ranges::all_of(word, [&](char c) { return digit(c) || c == '.' || c == ',' || c == '('; }) &&
         digit(word.back());
}

/// Takes the next word off `text`, a number with the word behind it; empty between two blanks.
std::string take_word(std::string_view& text) {
  const auto next = [&] {
    const std::string word(text.substr(0, text.find(' ')));
    text.remove_prefix(std::min(word.size() + 1, text.size()));
    return word;
  };
  std::string word = next();
  if (!is_number(word) || text.empty() || text.front() == ' ') return word;
  return word + ' ' + next();
}

/// Takes a start of at most `width` columns off a longer word, as a rule behind a mark between parts of a name.
std::string take_part(std::string& word, std::size_t width) {
  std::size_t end = 0, used = 0, behind_mark = 0;
  const auto is_inside = [&](std::size_t at) { return (static_cast<unsigned char>(word[at]) & 0xC0) == 0x80; };
  while (end < word.size() && (is_inside(end) || used < width)) {
    used += is_inside(end) ? 0 : 1;
    if (std::string_view("./_-:").find(word[end++]) != std::string_view::npos) behind_mark = end;
  }
  if (end == word.size()) return std::exchange(word, {});
  if (behind_mark > end / 2) end = behind_mark;
  std::string part = word.substr(0, end);
  word.erase(0, end);
  return part;
}

/// The lines, of whose words none is longer than `width` columns.
std::vector<std::string> cut(const std::vector<std::string>& lines, std::size_t width) {
  std::vector<std::string> parts;
  for (std::string line : lines)
    while (!line.empty() || parts.empty()) parts.push_back(take_part(line, std::max<std::size_t>(1, width)));
  return parts;
}

/// The text in pieces of at most `width` columns, cut between words; a longer word stays whole.
std::vector<std::string> pieces(std::string_view text, std::size_t width) {
  std::vector<std::string> lines(1);
  std::size_t used = 0;
  while (!text.empty()) {
    const std::string word = take_word(text);
    if (word.empty()) continue;
    const std::size_t more = columns_of(word) + (used > 0 ? 1 : 0);
    if (used > 0 && used + more > width) {
      lines.push_back(word);
      used = more - 1;
      continue;
    }
    lines.back() += (used > 0 ? " " : "") + word;
    used += more;
  }
  return lines;
}

}  // namespace

std::size_t columns_of(std::string_view text) noexcept {
  return static_cast<std::size_t>(
      std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::string wrap(std::string_view text, std::size_t width, std::size_t indent) {
  std::string out;
  for (const std::string& line : pieces(text, width > indent ? width - indent : 1))
    out += std::string(indent, ' ') + line + '\n';
  return out;
}

std::string hanging(std::string_view text, std::size_t width) {
  constexpr std::string_view kIndent = "  ";
  std::string lines = wrap(text, width > kIndent.size() ? width - kIndent.size() : 1, 0);
  for (std::size_t at = lines.find('\n'); at + 1 < lines.size(); at = lines.find('\n', at + 1))
    lines.insert(at + 1, kIndent);
  return lines;
}

Table::Table(std::vector<std::pair<std::string, Align>> columns) {
  auto& heading = rows_.emplace_back();
  for (auto& [title, align] : columns) align_.push_back(align), heading.push_back(std::move(title));
}

void Table::row(std::vector<std::string> cells) {
  cells.resize(align_.size());
  rows_.push_back(std::move(cells));
}

std::vector<std::size_t> Table::widths(std::size_t most) const {
  std::vector<std::size_t> width(align_.size(), 0);
  for (const auto& row : rows_)
    for (std::size_t c = 0; c < row.size(); ++c) width[c] = std::max(width[c], columns_of(row[c]));
  const std::size_t gaps = 2 * (width.size() - 1);
  const auto all = [&] { return std::accumulate(width.begin(), width.end(), gaps); };
  std::size_t longest_word = 0;
  for (const auto& row : rows_)
    for (const std::string& word : pieces(row.back(), 1)) longest_word = std::max(longest_word, columns_of(word));
  const std::size_t last = width.size() - 1, third = std::max(most / 3, longest_word);
  // What is too wide: first the texts at the end down to a third of the line, then the names, then those texts again,
  // then all names have lines of their own, and at last words are cut.
  for (const auto& [column, least] :
       {std::pair(last, third), std::pair(std::size_t{0}, kMinNames), std::pair(last, longest_word),
        std::pair(std::size_t{0}, columns_of(rows_[0][0])), std::pair(last, kMinTexts)})
    if (const std::size_t now = all(); now > most && align_[column] == Align::left && width[column] > least)
      width[column] = std::max(least, width[column] - std::min(width[column], now - most));
  return width;
}

std::string Table::text(std::size_t most) const {
  const std::vector<std::size_t> width = widths(most);
  const std::size_t last = width.size() - 1;
  std::size_t last_begins = 0;
  for (std::size_t c = 0; c < last; ++c) last_begins += width[c] + 2;
  std::string text;
  for (const auto& row : rows_) {
    std::string line;
    for (std::size_t c = 0; c < row.size(); ++c) {
      // A name that is too long has a line of its own.
      if (c == 0 && last > 0 && columns_of(row[c]) > width[c]) {
        text += columns_of(row[c]) > most ? wrap(row[c], most, 0) : row[c] + '\n';
        line = std::string(width[c], ' ');
        continue;
      }
      const bool left = align_[c] == Align::left;
      const auto parts = c == last && left ? cut(pieces(row[c], width[c]), width[c]) : std::vector<std::string>{row[c]};
      const std::string pad(width[c] - std::min(width[c], columns_of(parts[0])), ' ');
      line += (c == 0 ? "" : "  ") + (left ? parts[0] + pad : pad + parts[0]);
      for (std::size_t i = 1; i < parts.size(); ++i) {
        line.erase(line.find_last_not_of(' ') + 1);
        line += '\n' + std::string(last_begins, ' ') + parts[i];
      }
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + '\n';
  }
  return text;
}

std::string shape_text(const std::vector<std::uint64_t>& shape) {
  return shape.empty() ? "scalar" : fmt::format("{}", fmt::join(shape, "x"));
}

std::string relative_error_text(double squared_error, double energy) {
  if (!(energy > 0)) return "-";
  if (squared_error == 0) return "0";
  return fmt::format("{:.3g}", std::sqrt(squared_error / energy));
}

std::string decibel_text(double squared_error, double energy) {
  if (!(energy > 0)) return "-";
  if (squared_error == 0) return "inf";
  return fmt::format("{:.2f}", 10 * std::log10(energy / squared_error));
}

std::string name_pattern(const std::string& name) {
  std::string pattern;
  bool part_begins = true;
  for (std::size_t i = 0; i < name.size();) {
    std::size_t end = i;
    while (end < name.size() && name[end] >= '0' && name[end] <= '9') ++end;
    const bool part_ends = end == name.size() || name[end] == '.' || name[end] == '/' || name[end] == '_';
    if (end > i && part_begins && part_ends) {
      pattern += '*';
      i = end;
      part_begins = false;
      continue;
    }
    part_begins = name[i] == '.' || name[i] == '/' || name[i] == '_';
    pattern += name[i++];
  }
  return pattern;
}

std::string counted_name(const std::string& name, std::uint64_t tensors) {
  return tensors > 1 ? fmt::format("{} ({})", printable(name), counted(tensors, "tensor")) : printable(name);
}

}  // namespace lmq::app
