#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "lmq/base/error.hpp"
#include "lmq/container/layout.hpp"
#include "lmq/container/names.hpp"
#include "tables.hpp"

namespace lmq {
namespace {

namespace key = container;

std::string quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

template <class Number>
std::string number(Number value) {
  if constexpr (std::is_floating_point_v<Number>)
    if (!std::isfinite(value)) return std::isnan(value) ? "\"nan\"" : value > 0 ? "\"inf\"" : "\"-inf\"";
  char room[40];
  const auto done = std::to_chars(std::begin(room), std::end(room), value);
  return {room, done.ptr};
}

/// To four places, for people.
std::string rounded(double value) {
  if (!(value >= 0 && value < 1e9)) return number(value);
  const auto units = static_cast<std::uint64_t>(value * 10000 + 0.5);
  return number(static_cast<double>(units) / 10000);
}

std::string list(const std::vector<std::uint64_t>& numbers) {
  std::string text = "[";
  for (const std::uint64_t each : numbers) text += (text.size() > 1 ? "," : "") + number(each);
  return text + "]";
}

/// An object of columns.
class Columns {
 public:
  /// text(i): the i-th value as JSON; a column of nothing but null is left out.
  template <class Text>
  void add(const char* name, std::size_t count, Text text) {
    std::string column;
    bool any = false;
    for (std::size_t i = 0; i < count; ++i) {
      const std::string value = text(i);
      any = any || value != "null";
      column += (i > 0 ? "," : "") + value;
    }
    if (any) text_ += (text_.empty() ? "\"" : ",\"") + std::string(name) + "\":[" + column + "]";
  }
  [[nodiscard]] std::string text() const { return "{" + text_ + "}"; }

 private:
  std::string text_;
};

/// The numbers of a scope's codebook, as listed_codebook has them; those of a grid are made in `shared`.
Codebooks::Row row_of(const Codebook& codebook, std::deque<std::array<float, 2>>& shared) {
  if (codebook.kind() == CodebookKind::table) return {codebook.kind(), codebook.levels()};
  if (!codebook.numbers().empty()) return {codebook.kind(), codebook.numbers()};
  return {codebook.kind(), shared.emplace_back(std::array{codebook.low(), codebook.step()})};
}

/// Row of a tensor whose codebook is its own; empty when it has several.
Codebooks::Row row_of(const OutputContents& contents, const TensorPlan& tensor) {
  if (tensor.units != 1) return {};
  const ListedCodebook& own = contents.units[tensor.first_unit].result.codebook;
  return {own.kind, own.numbers};
}

/// Elements of a unit where that does not follow from the dataset's chunks: kept tensors of several units.
std::string unit_text(const OutputContents& contents, const TensorPlan& tensor) {
  if (tensor.treatment != Treatment::keep || tensor.units < 2) return "null";
  return number(contents.plan.units[tensor.first_unit].count);
}

// More than 40 lines: a line for each column of the table.
std::string tensor_columns(const OutputContents& contents, const std::vector<TensorLine>& lines,
                           const Codebooks& codebooks) {
  Columns columns;
  const auto each = [&](const char* name, auto text) {
    columns.add(name, lines.size(), [&](std::size_t t) { return text(lines[t], contents.plan.tensors[t]); });
  };
  const auto quantized = [&](const char* name, auto text) {
    each(name, [&](const TensorLine& line, const TensorPlan& tensor) {
      return tensor.treatment == Treatment::quantize ? text(line, tensor) : std::string("null");
    });
  };
  each(key::kName, [](const TensorLine& line, const TensorPlan&) { return quoted(line.name); });
  each(key::kDtype, [](const TensorLine& line, const TensorPlan&) { return quoted(line.dtype); });
  each(key::kShape, [](const TensorLine& line, const TensorPlan&) { return list(line.shape); });
  each(key::kMethodName, [](const TensorLine& line, const TensorPlan&) { return quoted(line.method); });
  each(key::kBits, [](const TensorLine& line, const TensorPlan&) { return rounded(line.bits_per_weight); });
  each(key::kReason, [](const TensorLine& line, const TensorPlan&) {
    return line.reason.empty() ? std::string("null") : quoted(line.reason);
  });
  each(key::kSourceBytes, [](const TensorLine& line, const TensorPlan&) { return number(line.source_bytes); });
  each(key::kUnitElements, [&](const TensorLine&, const TensorPlan& tensor) { return unit_text(contents, tensor); });
  quantized(key::kGranularity, [](const TensorLine&, const TensorPlan& tensor) {
    return quoted(std::string(name(tensor.spec.granularity)));
  });
  quantized(key::kGroupWeights, [](const TensorLine&, const TensorPlan& tensor) {
    return tensor.spec.group == 0 ? std::string("null") : number(tensor.spec.group);
  });
  quantized(key::kLevels,
            [](const TensorLine&, const TensorPlan& tensor) { return number(tensor.spec.options.levels); });
  columns.add(key::kCodebook, lines.size(), [&](std::size_t t) {
    return codebooks.row_of[t] < 0 ? std::string("null") : number(codebooks.row_of[t]);
  });
  columns.add(key::kCodebookHolds, lines.size(), [&](std::size_t t) {
    return codebooks.row_of[t] < 0
               ? std::string("null")
               : quoted(std::string(words_for(codebooks.rows[static_cast<std::size_t>(codebooks.row_of[t])].kind)));
  });
  quantized(key::kEntropyBits, [](const TensorLine& line, const TensorPlan&) { return rounded(line.entropy_bits); });
  quantized(key::kSquaredError, [](const TensorLine& line, const TensorPlan&) { return number(line.squared_error); });
  quantized(key::kWeightedError, [](const TensorLine& line, const TensorPlan&) {
    return line.weighted_error ? number(*line.weighted_error) : std::string("null");
  });
  quantized(key::kEnergy, [](const TensorLine& line, const TensorPlan&) { return number(line.energy); });
  if (std::ranges::any_of(lines, [](const TensorLine& line) { return line.weighted_energy.has_value(); }))
    quantized(key::kWeightedEnergy, [](const TensorLine& line, const TensorPlan&) {
      return line.weighted_energy ? number(*line.weighted_energy) : std::string("null");
    });
  quantized(key::kLargestError, [](const TensorLine& line, const TensorPlan&) { return number(line.largest_error); });
  return columns.text();
}

/// Of the units of quantized tensors that have several; those of one are the tensor's.
std::string unit_columns(const OutputContents& contents) {
  std::vector<std::uint64_t> units;
  for (const TensorPlan& tensor : contents.plan.tensors)
    if (tensor.treatment == Treatment::quantize && tensor.units > 1)
      for (std::uint64_t u = tensor.first_unit; u < tensor.first_unit + tensor.units; ++u) units.push_back(u);
  Columns columns;
  const auto each = [&](const char* name, auto field) {
    columns.add(name, units.size(),
                [&](std::size_t i) { return number(field(contents.units[units[i]].result.stats)); });
  };
  each(key::kSquaredError, [](const UnitStats& stats) { return stats.squared_error; });
  columns.add(key::kWeightedError, units.size(), [&](std::size_t i) {
    const TensorPlan& tensor = contents.plan.tensors[contents.plan.units[units[i]].tensor];
    return tensor.importance.present() ? number(contents.units[units[i]].result.stats.weighted_error) : "null";
  });
  each(key::kEnergy, [](const UnitStats& stats) { return stats.energy; });
  each(key::kLargestError, [](const UnitStats& stats) { return stats.largest_error; });
  return columns.text();
}

RecordLedger ledger_of(const OutputContents& contents) {
  RecordLedger sum;
  for (std::uint64_t u = 0; u < contents.units.size(); ++u) {
    if (contents.plan.tensors[contents.plan.units[u].tensor].treatment != Treatment::quantize) continue;
    const RecordLedger& record = contents.units[u].result.ledger;
    if (record.total() != contents.units[u].bytes)
      fail(Errc::internal, "the ledger of a record does not sum to its bytes");
    sum.header += record.header, sum.codebooks += record.codebooks;
    sum.tables += record.tables, sum.codes += record.codes;
  }
  return sum;
}

}  // namespace

std::size_t Codebooks::widest() const noexcept {
  std::size_t most = 0;
  for (const Row& row : rows) most = std::max(most, row.numbers.size());
  return most;
}

std::vector<std::byte> Codebooks::planes() const {
  const std::size_t width = widest(), count = rows.size() * width;
  std::vector<std::byte> all(count * sizeof(float));
  for (std::size_t i = 0; i < count; ++i) {
    const auto& numbers = rows[i / width].numbers;
    const float number = i % width < numbers.size() ? numbers[i % width] : std::numeric_limits<float>::quiet_NaN();
    const auto bits = std::bit_cast<std::uint32_t>(number);
    for (std::size_t k = 0; k < sizeof(float); ++k) all[k * count + i] = static_cast<std::byte>(bits >> 8 * k & 0xFF);
  }
  return all;
}

Codebooks gather_codebooks(const OutputContents& contents) {
  Codebooks books;
  std::map<std::int64_t, std::int64_t> row_of_scope;
  for (const TensorPlan& tensor : contents.plan.tensors) {
    books.row_of.push_back(-1);
    if (tensor.treatment != Treatment::quantize || tensor.spec.granularity > Granularity::tensor) continue;
    if (const auto known = row_of_scope.find(tensor.scope); known != row_of_scope.end()) {
      books.row_of.back() = known->second;
      continue;
    }
    const Codebooks::Row row = tensor.scope < 0
                                   ? row_of(contents, tensor)
                                   : row_of(*contents.codebooks[static_cast<std::size_t>(tensor.scope)], books.shared);
    if (row.numbers.empty()) continue;
    books.row_of.back() = static_cast<std::int64_t>(books.rows.size());
    if (tensor.scope >= 0) row_of_scope.emplace(tensor.scope, books.row_of.back());
    books.rows.push_back(row);
  }
  return books;
}

std::string tensors_text(const OutputContents& contents, const std::vector<TensorLine>& tensors,
                         const Codebooks& codebooks) {
  const RecordLedger ledger = ledger_of(contents);
  const std::uint64_t bytes[] = {ledger.header, ledger.codebooks, ledger.tables, ledger.codes};
  std::string purposes;
  for (std::size_t i = 0; i < std::size(bytes); ++i)
    purposes += (i > 0 ? ",\"" : "\"") + std::string(key::kPurposes[i]) + "\":" + number(bytes[i]);
  return "{\"" + std::string(key::kPlanDigest) + "\":" + quoted(contents.plan.digest) + ",\"" + key::kRecordBytes +
         "\":{" + purposes + "},\"" + key::kTensorColumns + "\":" + tensor_columns(contents, tensors, codebooks) +
         ",\"" + key::kUnitColumns + "\":" + unit_columns(contents) + "}";
}

std::string packed_provenance(const OutputContents& contents) {
  nlohmann::json json = nlohmann::json::parse(contents.provenance_json, nullptr, false);
  if (!json.is_object() || !json.contains("shard_of") || !json["shard_of"].is_object()) return contents.provenance_json;
  nlohmann::json packed = nlohmann::json::array();
  for (const TensorInfo& tensor : contents.catalogue.tensors)
    packed.push_back(json["shard_of"].value(tensor.name, nlohmann::json()));
  json["shard_of"] = std::move(packed);
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace lmq
