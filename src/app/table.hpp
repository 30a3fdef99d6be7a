#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace lmq::app {

/// Text in columns, two spaces apart; a column of numbers is flushed right. Width is counted in code points.
class Table {
 public:
  enum class Align { left, right };
  explicit Table(std::vector<std::pair<std::string, Align>> columns);
  /// As many cells as there are columns.
  void row(std::vector<std::string> cells);
  [[nodiscard]] std::string text() const;
  [[nodiscard]] std::size_t rows() const noexcept { return rows_.size(); }

 private:
  std::vector<Align> align_;
  std::vector<std::vector<std::string>> rows_;  // the first one is the heading
};

/// {512, 64} -> "512x64"; {} -> "scalar".
[[nodiscard]] std::string shape_text(const std::vector<std::uint64_t>& shape);
/// 260032 -> "260,032".
[[nodiscard]] std::string with_commas(std::uint64_t number);
/// sqrt(squared_error / energy) for people: "0.0512", "0" without error, "-" without energy.
[[nodiscard]] std::string relative_error_text(double squared_error, double energy);
/// Signal to noise in decibels: "25.81", "inf" without error, "-" without energy.
[[nodiscard]] std::string decibel_text(double squared_error, double energy);
/// "model.layers.12.mlp.w1" -> "model.layers.*.mlp.w1": names that differ in numbers only are shown as one line.
[[nodiscard]] std::string name_pattern(const std::string& name);

}  // namespace lmq::app
