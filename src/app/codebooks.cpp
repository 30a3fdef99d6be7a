#include "codebooks.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "lmq/base/error.hpp"
#include "lmq/base/math.hpp"
#include "lmq/base/text.hpp"
#include "lmq/base/words.hpp"
#include "lmq/codec/record.hpp"
#include "lmq/codec/trellis_record.hpp"
#include "lmq/container/contents.hpp"
#include "options.hpp"
#include "table.hpp"
#include "terminal.hpp"

namespace lmq::app {
namespace {

const StoredTensor& find_tensor(const QuantizedFile& file, const std::string& name) {
  const auto& tensors = file.tensors();
  const auto at = std::ranges::find(tensors, name, [](const StoredTensor& tensor) { return tensor.line.name; });
  if (at == tensors.end()) {
    std::vector<std::string_view> names;
    for (const StoredTensor& tensor : tensors) names.push_back(tensor.line.name);
    const std::string near = nearest(name, names);
    fail(Errc::usage, fmt::format("--codebook {}: {} has no such tensor{}", printable(name), file.name(),
                                  near.empty() ? "" : fmt::format("; did you mean {}?", printable(near))));
  }
  if (at->treatment != Treatment::quantize)
    fail(Errc::usage, fmt::format("--codebook {}: the tensor is not quantized ({}), it has no codebook",
                                  printable(name), at->line.reason.empty() ? at->line.method : at->line.reason));
  return *at;
}

std::string quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

/// The numbers that codebook `book` is stored as; of factors all of the record.
std::span<const float> numbers_of(const QuantizedUnit& unit, std::uint64_t book) {
  if (unit.kind == CodebookKind::rank1) return unit.book;
  const auto each = static_cast<std::size_t>(numbers_per_codebook(unit.kind, unit.levels));
  return std::span(unit.book).subspan(static_cast<std::size_t>(book) * each, each);
}

/// What precedes the codebooks.
std::string head(const StoredTensor& tensor, const QuantizedUnit& unit, bool json) {
  if (json)
    return fmt::format("{{\"name\": {}, \"method\": {}, \"group\": {}, \"stored_as\": \"{}\", \"codebooks\": [",
                       quoted(tensor.line.name), quoted(tensor.line.method), unit.group, words_for(unit.kind));
  const std::string serves =
      unit.group == 0 ? "one codebook for all" : fmt::format("a codebook for every {} weights of a row", unit.group);
  return fmt::format("# {}, {}, {}: {}, stored as {}\n# row, column, levels\n", printable(tensor.line.name),
                     shape_text(tensor.line.shape), printable(tensor.line.method), serves, words_for(unit.kind));
}

/// The codebooks of one record, a line each. `first`: the record is the tensor's first.
std::string lines_of(const QuantizedUnit& unit, std::uint64_t begin, bool first, bool json) {
  std::string text;
  const std::uint64_t in_row = unit.group > 0 ? ceil_div(unit.cols, unit.group) : 1;
  for (std::uint64_t book = 0; book < unit.codebooks(); ++book) {
    const bool whole_rows = unit.group > 0 || unit.kind == CodebookKind::rank1;
    const std::uint64_t row = whole_rows ? begin / unit.cols + book / in_row : 0;
    const auto levels = levels_of(unit, book);
    if (json) text += first && book == 0 ? "\n" : ",\n";
    const auto numbers = numbers_of(unit, book);
    const std::uint64_t column = book % in_row * unit.group;
    if (json)
      text += fmt::format("  {{\"row\": {}, \"column\": {}, \"levels\": [{}], \"numbers\": [{}]}}", row, column,
                          fmt::join(levels, ", "), fmt::join(numbers, ", "));
    else
      text += fmt::format("{} {} {}\n", row, column, fmt::join(levels, " "));
    if (!json && unit.kind != CodebookKind::table)
      text += fmt::format("# {} {} {}: {}\n", row, column, words_for(unit.kind), fmt::join(numbers, " "));
  }
  return text;
}

/// Steps and spread classes of a record of whole rows: of every row and every column. The step of a weight is the product
/// of its row's and its column's, its class the sum. `first`: the record is the tensor's first, what precedes it is there.
std::string steps_of(const StoredTensor& tensor, const TrellisUnit& unit, std::uint64_t begin, bool first, bool json) {
  const std::uint64_t first_row = unit.cols == 0 ? 0 : begin / unit.cols;
  std::vector<float> row_step, col_step;
  for (const int eighths : unit.row_step) row_step.push_back(unit.step * octave_eighths(eighths));
  for (const int eighths : unit.col_step) col_step.push_back(octave_eighths(eighths));
  if (json) {
    const std::string text = fmt::format(
        "  {{\"row\": {}, \"states\": {}, \"lane_rows\": {}, \"step\": {}, \"row_step\": [{}], \"row_class\": [{}], "
        "\"col_step\": [{}], \"col_class\": [{}]}}",
        first_row, unit.states, unit.lane_rows, unit.step, fmt::join(row_step, ", "), fmt::join(unit.row_spread, ", "),
        fmt::join(col_step, ", "), fmt::join(unit.col_spread, ", "));
    return (first ? fmt::format("{{\"name\": {}, \"method\": {}, \"stored_as\": \"steps\", \"records\": [\n",
                                quoted(tensor.line.name), quoted(tensor.line.method))
                  : std::string(",\n")) +
           text;
  }
  std::string text;
  if (first)
    text = fmt::format("# {}, {}, {}: whole numbers of steps\n# row or column, its number, step, spread class\n",
                       printable(tensor.line.name), shape_text(tensor.line.shape), printable(tensor.line.method));
  text += fmt::format("# record from row {} on: {} states, lanes of {} rows\n", first_row, unit.states, unit.lane_rows);
  for (std::size_t i = 0; i < row_step.size(); ++i)
    text += fmt::format("row {} {} {}\n", first_row + i, row_step[i], unit.row_spread[i]);
  for (std::size_t j = 0; j < col_step.size(); ++j)
    text += fmt::format("column {} {} {}\n", j, col_step[j], unit.col_spread[j]);
  return text;
}

}  // namespace

void print_codebooks(const QuantizedFile& file, const std::string& tensor, bool json,
                     const std::function<void(std::string_view)>& put) {
  const StoredTensor& stored = find_tensor(file, tensor);
  std::vector<std::byte> bytes;
  bool first = true;
  for (const StoredUnit& place : file.units()) {
    if (&file.tensors()[place.tensor] != &stored) continue;
    file.read(place, bytes);
    if (is_trellis_record(bytes)) {
      put(steps_of(stored, decode_trellis_record(bytes, file.place(place)), place.begin, first, json));
      first = false;
      continue;
    }
    const QuantizedUnit unit = decode_record(bytes, file.place(place));
    if (first) put(head(stored, unit, json));
    put(lines_of(unit, place.begin, first, json));
    first = false;
    if (unit.group == 0 && unit.kind != CodebookKind::rank1) break;  // the same in every record
  }
  if (first) fail(Errc::malformed, fmt::format("{}: tensor '{}' has no units", file.name(), printable(tensor)));
  if (json) put("\n]}\n");
}

}  // namespace lmq::app
