#include "tensor_lines.hpp"

#include <fmt/format.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "lmq/base/text.hpp"
#include "table.hpp"

namespace lmq::app {
namespace {

/// Tensors that share a line of the table.
struct Shown {
  TensorLine line;
  std::size_t tensors = 0;
  bool one_shape = true;
};

void add(Shown& shown, const TensorLine& line) {
  if (shown.tensors++ == 0) {
    shown.line = line;
    return;
  }
  TensorLine& sum = shown.line;
  shown.one_shape = shown.one_shape && sum.shape == line.shape;
  sum.weights += line.weights;
  sum.source_bytes += line.source_bytes;
  sum.stored_bytes += line.stored_bytes;
  sum.squared_error += line.squared_error;
  sum.energy += line.energy;
  const auto more = [](std::optional<double>& all, const std::optional<double>& one) {
    if (one) all = all.value_or(0) + *one;
  };
  more(sum.weighted_error, line.weighted_error), more(sum.weighted_energy, line.weighted_energy);
}

std::vector<Shown> grouped(const std::vector<TensorLine>& lines) {
  std::vector<Shown> groups;
  std::map<std::string, std::size_t> index;
  for (const TensorLine& line : lines) {
    const std::string pattern = name_pattern(line.name), reason = name_pattern(line.reason);  // may name others
    const auto [at, fresh] =
        index.try_emplace(fmt::format("{}\n{}\n{}\n{}", pattern, line.dtype, line.method, reason), groups.size());
    if (fresh) groups.emplace_back();
    Shown& group = groups[at->second];
    add(group, line);
    if (group.tensors == 2) group.line.name = pattern, group.line.reason = reason;
  }
  return groups;
}

void show(Table& table, const Shown& shown, bool weighted) {
  const TensorLine& line = shown.line;
  const double bits =
      line.weights > 0 ? 8 * static_cast<double>(line.stored_bytes) / static_cast<double>(line.weights) : 0;
  const bool quantized = line.quantized();
  std::vector<std::string> cells{counted_name(line.name, shown.tensors), line.dtype,
                                 shown.one_shape ? shape_text(line.shape) : "various",
                                 line.weights > 0 && line.method != "folded" ? fmt::format("{:.3f}", bits) : "-",
                                 quantized ? decibel_text(line.squared_error, line.energy) : "-"};
  if (weighted)
    cells.push_back(line.weighted_error ? decibel_text(*line.weighted_error, line.weighted_energy.value_or(0)) : "-");
  cells.push_back(line.reason.empty() ? line.method : fmt::format("{}: {}", line.method, printable(line.reason)));
  table.row(std::move(cells));
}

}  // namespace

double Totals::quantized_bits() const noexcept {
  return quantized_weights > 0 ? 8 * static_cast<double>(quantized_bytes) / static_cast<double>(quantized_weights) : 0;
}
double Totals::file_bits() const noexcept {
  return weights > 0 ? 8 * static_cast<double>(file_bytes) / static_cast<double>(weights) : 0;
}
double Totals::quantized_ratio() const noexcept {
  return quantized_bytes > 0 ? static_cast<double>(quantized_source_bytes) / static_cast<double>(quantized_bytes) : 0;
}

Totals totals_of(const std::vector<TensorLine>& lines, std::uint64_t file_bytes) {
  Totals totals;
  totals.file_bytes = file_bytes;
  for (const TensorLine& line : lines) {
    totals.source_bytes += line.source_bytes;
    if (line.method == "folded") continue;
    totals.weights += line.weights;
    if (!line.quantized()) continue;
    totals.quantized_weights += line.weights;
    totals.quantized_bytes += line.stored_bytes;
    totals.quantized_source_bytes += line.source_bytes;
    totals.squared_error += line.squared_error;
    totals.energy += line.energy;
  }
  return totals;
}

std::string tensor_table(const std::vector<TensorLine>& lines, std::size_t width, std::size_t most) {
  std::vector<Shown> shown;
  if (lines.size() > most)
    shown = grouped(lines);
  else
    for (const TensorLine& line : lines) add(shown.emplace_back(), line);
  const bool weighted =
      std::ranges::any_of(lines, [](const TensorLine& line) { return line.weighted_error.has_value(); });
  using enum Table::Align;
  std::vector<std::pair<std::string, Table::Align>> columns{
      {"tensor", left}, {"type", left}, {"shape", left}, {"bits", right}, {"SNR dB", right}};
  if (weighted) columns.emplace_back("weighted dB", right);
  columns.emplace_back("method", left);
  Table table(std::move(columns));
  std::size_t left_out = 0;
  for (std::size_t i = 0; i < shown.size(); ++i) {
    if (i + 1 >= kMaxLines && shown.size() > kMaxLines)
      left_out += shown[i].tensors;
    else
      show(table, shown[i], weighted);
  }
  std::string text = table.text(width);
  if (left_out > 0)
    text += fmt::format("... and {} (lmq inspect --json lists all)\n", counted(left_out, "more tensor"));
  return text + "bits: stored bits per weight" + (weighted ? "; weighted dB: SNR by importance\n" : "\n");
}

std::string totals_text(const Totals& totals) {
  std::string text =
      fmt::format("{} in {}, now {} in the file:\n{:.3f} bits per weight", counted(totals.weights, "weight"),
                  format_bytes(totals.source_bytes), format_bytes(totals.file_bytes), totals.file_bits());
  if (totals.file_bytes > 0 && totals.source_bytes > 0) {
    const double smaller = static_cast<double>(totals.source_bytes) / static_cast<double>(totals.file_bytes);
    text += smaller >= 1 ? fmt::format(", {:.2f} times smaller", smaller)
                         : fmt::format(", {:.2f} times larger", 1 / smaller);
  }
  if (totals.quantized_weights > 0)
    text += fmt::format("\n{}: {:.3f} bits per weight,\nrelative error {}, SNR {} dB",
                        counted(totals.quantized_weights, "quantized weight"), totals.quantized_bits(),
                        relative_error_text(totals.squared_error, totals.energy),
                        decibel_text(totals.squared_error, totals.energy));
  if (totals.quantized_bytes > 0)
    text += fmt::format(
        "\ncompression ratio {:.2f} of the quantized tensors (codes, codebooks, tables),\n{:.2f} of the file",
        totals.quantized_ratio(),
        static_cast<double>(totals.source_bytes) / static_cast<double>(std::max<std::uint64_t>(totals.file_bytes, 1)));
  return text + '\n';
}

nlohmann::json to_json(const std::vector<TensorLine>& lines) {
  nlohmann::json list = nlohmann::json::array();
  for (const TensorLine& line : lines) {
    nlohmann::json item{{"name", line.name},
                        {"dtype", line.dtype},
                        {"shape", line.shape},
                        {"method", line.method},
                        {"weights", line.weights},
                        {"source_bytes", line.source_bytes},
                        {"stored_bytes", line.stored_bytes}};
    if (line.quantized()) {
      item["bits_per_weight"] = line.bits_per_weight;
      item["squared_error"] = line.squared_error;
      item["energy"] = line.energy;
      item["largest_error"] = line.largest_error;
      if (line.weighted_error) item["weighted_error"] = *line.weighted_error;
      if (line.weighted_energy) item["weighted_energy"] = *line.weighted_energy;
      item["relative_error"] =
          line.energy > 0 ? nlohmann::json(std::sqrt(line.squared_error / line.energy)) : nlohmann::json(nullptr);
    } else {
      item["reason"] = line.reason;
    }
    list.push_back(std::move(item));
  }
  return list;
}

nlohmann::json to_json(const Totals& totals) {
  nlohmann::json out{{"weights", totals.weights},
                     {"quantized_weights", totals.quantized_weights},
                     {"source_bytes", totals.source_bytes},
                     {"file_bytes", totals.file_bytes},
                     {"quantized_bytes", totals.quantized_bytes},
                     {"bits_per_weight", totals.file_bits()},
                     {"quantized_bits_per_weight", totals.quantized_bits()},
                     {"squared_error", totals.squared_error},
                     {"energy", totals.energy}};
  out["ratio"] = totals.file_bytes > 0
                     ? nlohmann::json(static_cast<double>(totals.source_bytes) / static_cast<double>(totals.file_bytes))
                     : nlohmann::json(nullptr);
  out["quantized_ratio"] =
      totals.quantized_bytes > 0 ? nlohmann::json(totals.quantized_ratio()) : nlohmann::json(nullptr);
  return out;
}

}  // namespace lmq::app
