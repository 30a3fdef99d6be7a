#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lmq/base/words.hpp"

namespace lmq::app {

/// Columns a text takes on a terminal: its code points.
[[nodiscard]] std::size_t columns_of(std::string_view text) noexcept;
/// Lines of at most `width` columns, cut between words, each behind `indent` spaces and with its line break. A number
/// stays with the word behind it, which is its unit as a rule.
[[nodiscard]] std::string wrap(std::string_view text, std::size_t width, std::size_t indent);
/// The same for one line that may be long: from its second line on indented by two spaces.
[[nodiscard]] std::string hanging(std::string_view text, std::size_t width);

/// Text in columns, two spaces apart; a column of numbers is flushed right.
class Table {
 public:
  enum class Align { left, right };
  explicit Table(std::vector<std::pair<std::string, Align>> columns);
  /// As many cells as there are columns.
  void row(std::vector<std::string> cells);
  /// Lines of at most `most` columns where that can be: texts in the last column are broken between words, long words
  /// between their parts; names in the first one that are too long have a line of their own, unbroken. Nothing is left
  /// out.
  [[nodiscard]] std::string text(std::size_t most) const;
  [[nodiscard]] std::size_t rows() const noexcept { return rows_.size(); }

 private:
  static constexpr std::size_t kMinNames = 16, kMinTexts = 16;
  [[nodiscard]] std::vector<std::size_t> widths(std::size_t most) const;

  std::vector<Align> align_;
  std::vector<std::vector<std::string>> rows_;  // the first one is the heading
};

/// {512, 64} -> "512x64"; {} -> "scalar".
[[nodiscard]] std::string shape_text(const std::vector<std::uint64_t>& shape);
/// sqrt(squared_error / energy) for people: "0.0512", "0" without error, "-" without energy.
[[nodiscard]] std::string relative_error_text(double squared_error, double energy);
/// Signal to noise in decibels: "25.81", "inf" without error, "-" without energy.
[[nodiscard]] std::string decibel_text(double squared_error, double energy);
/// "model.layers.12.mlp.w1" -> "model.layers.*.mlp.w1": names that differ in numbers only are shown as one line.
[[nodiscard]] std::string name_pattern(const std::string& name);
/// A name for a table: "a.*.w (12 tensors)" when several share the line; safe to print.
[[nodiscard]] std::string counted_name(const std::string& name, std::uint64_t tensors);

}  // namespace lmq::app
