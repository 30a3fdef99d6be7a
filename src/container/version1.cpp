// Version 1 of the file: a dozen attributes a tensor, a dataset for every column of units and every codebook.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "lmq/base/math.hpp"
#include "lmq/base/text.hpp"
#include "lmq/container/names.hpp"
#include "tables.hpp"

namespace lmq {
namespace {

using Json = nlohmann::json;

// Names that later versions do not have.
constexpr const char* kReport = "/lmq/report";
constexpr const char* kLedger = "/lmq/ledger";
constexpr const char* kLedgerNames = "names";           // attribute of kLedger
constexpr const char* kUnits = "/lmq/units/";           // and a column's name
constexpr const char* kCodebookOf = "/lmq/codebooks/";  // and the tensor's name

template <class T>
const T* attribute(const std::vector<Attribute>& attributes, const std::string& name) noexcept {
  for (const Attribute& a : attributes)
    if (a.name == name) return std::get_if<T>(&a.value);
  return nullptr;
}

std::string text_of(const std::vector<Attribute>& attributes, const std::string& name) {
  const auto* text = attribute<std::string>(attributes, name);
  return text == nullptr ? "" : *text;
}

/// A whole number, whatever its sign in the file; nothing when it is missing or negative.
std::optional<std::uint64_t> number_of(const std::vector<Attribute>& attributes, const std::string& name) {
  if (const auto* value = attribute<std::uint64_t>(attributes, name)) return *value;
  if (const auto* value = attribute<std::int64_t>(attributes, name); value != nullptr && *value >= 0)
    return static_cast<std::uint64_t>(*value);
  return std::nullopt;
}

double real_of(const std::vector<Attribute>& attributes, const std::string& name) {
  const auto* value = attribute<double>(attributes, name);
  return value == nullptr ? 0 : *value;
}

std::optional<std::vector<std::uint64_t>> reported_shape(const Json& entry) {
  const auto shape = entry.find("shape");
  if (shape == entry.end() || !shape->is_array()) return std::nullopt;
  if (!std::ranges::all_of(*shape, [](const Json& dim) { return dim.is_number_unsigned(); })) return std::nullopt;
  return shape->get<std::vector<std::uint64_t>>();
}

template <class T>
std::vector<T> read_table(const QuantizedFile& file, const std::string& path) {
  const auto dataset = file.find(path);
  if (!dataset) fail(Errc::malformed, fmt::format("{}: dataset {} is missing", file.name(), path));
  constexpr DType kType = std::is_same_v<T, double> ? DType::f64 : DType::u64;
  const DatasetLayout& layout = file.layout().datasets[*dataset];
  if (layout.dtype != kType || layout.shape.size() != 1)
    fail(Errc::malformed, fmt::format("{}: dataset {} is {} in {} dimensions, expected is a list of {}", file.name(),
                                      path, lmq::name(layout.dtype), layout.shape.size(), lmq::name(kType)));
  const std::vector<std::byte> bytes = file.read_dataset(*dataset);
  std::vector<T> values(bytes.size() / sizeof(T));
  if (values.size() != layout.shape[0] || bytes.size() != values.size() * sizeof(T))
    fail(Errc::malformed,
         fmt::format("{}: dataset {} has {} bytes for {} values", file.name(), path, bytes.size(), layout.shape[0]));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

/// What the report alone says of a tensor.
StoredTensor reported_tensor(const QuantizedFile& file, std::size_t index, const Json& entry) {
  if (!entry.is_object() || !entry.value("name", Json()).is_string())
    fail(Errc::malformed, fmt::format("{}: /lmq/report: entry {} has no name", file.name(), index));
  StoredTensor tensor;
  TensorLine& line = tensor.line;
  line.name = entry["name"].get<std::string>();
  if (const auto reason = entry.find("reason"); reason != entry.end() && reason->is_string()) line.reason = *reason;
  if (const auto bytes = entry.find("source_bytes"); bytes != entry.end() && bytes->is_number_unsigned())
    line.source_bytes = *bytes;
  tensor.dataset = file.find("/" + line.name);
  if (tensor.dataset) return tensor;
  tensor.treatment = Treatment::fold;
  line.method = "folded";
  if (const auto dtype = entry.find("dtype"); dtype != entry.end() && dtype->is_string()) line.dtype = *dtype;
  line.shape = reported_shape(entry).value_or(std::vector<std::uint64_t>{});
  if (!product_of(line.shape, line.weights)) line.weights = 0;
  return tensor;
}

/// What the tensor's dataset says of it.
void read_dataset_of(const QuantizedFile& file, StoredTensor& tensor, const Json& entry) {
  TensorLine& line = tensor.line;
  const DatasetLayout& dataset = file.layout().datasets[*tensor.dataset];
  tensor.treatment = dataset.encoded ? Treatment::quantize : Treatment::keep;
  line.dtype = text_of(dataset.attributes, "lmq_dtype");
  const auto dtype = parse_dtype(line.dtype);
  if (!dtype)
    fail(Errc::malformed,
         fmt::format("{}: tensor '{}': lmq_dtype is '{}'", file.name(), printable(line.name), printable(line.dtype)));
  tensor.dtype = *dtype;
  line.shape = checkpoint_shape(dataset, *dtype);
  if (const auto shape = reported_shape(entry); shape && !dataset.encoded) line.shape = *shape;
  if (!product_of(line.shape, line.weights))
    fail(Errc::malformed, fmt::format("{}: tensor '{}': the shape is too large", file.name(), printable(line.name)));
  line.method = text_of(dataset.attributes, "lmq_method");
  if (line.quantized() && !dataset.encoded) refuse_stripped(file, line);
  if (line.reason.empty()) line.reason = text_of(dataset.attributes, "lmq_reason");
  line.bits_per_weight = real_of(dataset.attributes, "lmq_bits_per_weight");
  line.squared_error = real_of(dataset.attributes, "lmq_squared_error");
  line.energy = real_of(dataset.attributes, "lmq_energy");
  line.largest_error = real_of(dataset.attributes, "lmq_largest_error");
  if (const Json weighted = entry.value("weighted_error", Json());
      weighted.is_number() && entry.value("importance", Json()) == true)
    line.weighted_error = weighted.get<double>();
  for (const std::uint64_t piece : dataset.piece_bytes) line.stored_bytes += piece;
  tensor.first_unit = number_of(dataset.attributes, "lmq_first_unit").value_or(0);
  tensor.units = number_of(dataset.attributes, "lmq_units").value_or(0);
}

void read_tensors(const QuantizedFile& file, StoredTables& tables) {
  const Json report = read_json(file, kReport);
  const Json& list = report.is_object() && report.contains("tensors") ? report["tensors"] : report;
  if (!list.is_array()) fail(Errc::malformed, fmt::format("{}: /lmq/report is no list of tensors", file.name()));
  std::vector<bool> claimed(file.layout().datasets.size(), false);
  for (const Json& entry : list) {
    StoredTensor tensor = reported_tensor(file, tables.tensors.size(), entry);
    if (tensor.dataset) {
      if (claimed[*tensor.dataset])
        fail(Errc::malformed,
             fmt::format("{}: tensor '{}' is reported twice", file.name(), printable(tensor.line.name)));
      claimed[*tensor.dataset] = true;
      read_dataset_of(file, tensor, entry);
    }
    tables.tensors.push_back(std::move(tensor));
  }
  find_strangers(file, tables.tensors, tables.findings);
}

void read_units(const QuantizedFile& file, StoredTables& tables) {
  const auto u64 = [&](const char* table) { return read_table<std::uint64_t>(file, std::string(kUnits) + table); };
  const auto f64 = [&](const char* table) { return read_table<double>(file, std::string(kUnits) + table); };
  const auto tensor = u64("tensor"), begin = u64("begin"), count = u64("count"), bytes = u64("bytes"),
             digest = u64("digest"), source = u64("source_digest");
  const auto squared = f64("squared_error"), weighted = f64("weighted_error"), energy = f64("energy"),
             largest = f64("largest_error");
  for (const std::size_t size : {begin.size(), count.size(), bytes.size(), digest.size(), source.size(), squared.size(),
                                 weighted.size(), energy.size(), largest.size()})
    if (size != tensor.size())
      fail(Errc::malformed, fmt::format("{}: the tables in /lmq/units differ in length", file.name()));
  tables.units.resize(tensor.size());
  for (std::size_t u = 0; u < tables.units.size(); ++u) {
    if (tensor[u] >= tables.tensors.size())
      fail(Errc::malformed,
           fmt::format("{}: unit {} belongs to tensor {} of {}", file.name(), u, tensor[u], tables.tensors.size()));
    tables.units[u] = {.tensor = tensor[u],
                       .begin = begin[u],
                       .count = count[u],
                       .bytes = bytes[u],
                       .offset = 0,
                       .digest = digest[u],
                       .source_digest = source[u],
                       .squared_error = squared[u],
                       .weighted_error = weighted[u],
                       .energy = energy[u],
                       .largest_error = largest[u]};
  }
}

void read_ledger(const QuantizedFile& file, StoredTables& tables) {
  const auto dataset = file.find(kLedger);
  const auto bytes = read_table<std::uint64_t>(file, kLedger);
  std::string names = text_of(file.layout().datasets[*dataset].attributes, kLedgerNames);
  for (const std::uint64_t value : bytes) {
    const std::size_t comma = std::min(names.find(','), names.size());
    tables.ledger.push_back({names.substr(0, comma), value});
    names.erase(0, comma + 1);
  }
}

}  // namespace

StoredTables read_version1(const QuantizedFile& file) {
  StoredTables tables;
  tables.recipe = read_json(file, container::kRecipe);
  tables.provenance = read_json(file, container::kProvenance);
  for (const GroupLayout& group : file.layout().groups)
    if (group.path == container::kGroup) tables.plan_digest = text_of(group.attributes, container::kPlanDigest);
  read_tensors(file, tables);
  read_units(file, tables);
  read_ledger(file, tables);
  return tables;
}

std::optional<std::vector<float>> version1_codebook(const QuantizedFile& file, const std::string& tensor) {
  const auto dataset = file.find(kCodebookOf + tensor);
  if (!dataset || file.layout().datasets[*dataset].dtype != DType::f32) return std::nullopt;
  const std::vector<std::byte> bytes = file.read_dataset(*dataset);
  std::vector<float> levels(bytes.size() / sizeof(float));
  if (!levels.empty()) std::memcpy(levels.data(), bytes.data(), levels.size() * sizeof(float));
  return levels;
}

}  // namespace lmq
