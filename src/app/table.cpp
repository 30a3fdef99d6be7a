#include "table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace lmq::app {
namespace {

std::size_t width_of(const std::string& text) {
  return static_cast<std::size_t>(
      std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

}  // namespace

Table::Table(std::vector<std::pair<std::string, Align>> columns) {
  auto& heading = rows_.emplace_back();
  for (auto& [title, align] : columns) align_.push_back(align), heading.push_back(std::move(title));
}

void Table::row(std::vector<std::string> cells) {
  cells.resize(align_.size());
  rows_.push_back(std::move(cells));
}

std::string Table::text() const {
  std::vector<std::size_t> width(align_.size(), 0);
  for (const auto& row : rows_)
    for (std::size_t c = 0; c < row.size(); ++c) width[c] = std::max(width[c], width_of(row[c]));
  std::string text;
  for (const auto& row : rows_) {
    std::string line;
    for (std::size_t c = 0; c < row.size(); ++c) {
      const std::string pad(width[c] - width_of(row[c]), ' ');
      line += (c == 0 ? "" : "  ") + (align_[c] == Align::right ? pad + row[c] : row[c] + pad);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + '\n';
  }
  return text;
}

std::string shape_text(const std::vector<std::uint64_t>& shape) {
  return shape.empty() ? "scalar" : fmt::format("{}", fmt::join(shape, "x"));
}

std::string with_commas(std::uint64_t number) {
  std::string text = fmt::format("{}", number);
  for (std::size_t at = text.size(); at > 3;) text.insert(at -= 3, 1, ',');
  return text;
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

}  // namespace lmq::app
