#include "quantized_file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "lmq/base/math.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io/json_text.hpp"
#include "lmq/io_hdf5/hdf5_format.hpp"

namespace lmq::app {
namespace {

using Json = nlohmann::json;

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

/// The element count of a shape; false when it overflows.
bool product_of(const std::vector<std::uint64_t>& shape, std::uint64_t& product) {
  product = 1;
  return std::ranges::all_of(shape, [&](std::uint64_t dim) { return checked_mul(product, dim, product); });
}

bool is_ours(const std::string& path) { return path == "/lmq" || path.starts_with("/lmq/"); }

/// Shape in the checkpoint: HDF5 holds C64 with a last dimension of two floats.
std::vector<std::uint64_t> checkpoint_shape(const DatasetLayout& dataset, DType dtype) {
  std::vector<std::uint64_t> shape = dataset.shape;
  if (dtype == DType::c64 && !shape.empty() && dataset.dtype != DType::c64) shape.pop_back();
  return shape;
}

std::optional<std::vector<std::uint64_t>> reported_shape(const Json& entry) {
  const auto shape = entry.find("shape");
  if (shape == entry.end() || !shape->is_array()) return std::nullopt;
  if (!std::ranges::all_of(*shape, [](const Json& dim) { return dim.is_number_unsigned(); })) return std::nullopt;
  return shape->get<std::vector<std::uint64_t>>();
}

}  // namespace

QuantizedFile::QuantizedFile(const std::filesystem::path& path)
    : name_(printable(path.string())), file_(path, File::Mode::read) {
  if (!is_hdf5(path)) fail(Errc::unsupported, fmt::format("{}: is no HDF5 file", name_));
  LayoutFormat::Existing existing = make_hdf5_format()->open(path);
  layout_ = std::move(existing.layout);
  places_ = std::move(existing.places);
  check_format();
  recipe_ = read_json("/lmq/recipe");
  provenance_ = read_json("/lmq/provenance");
  report_ = read_json("/lmq/report");
  for (const GroupLayout& group : layout_.groups)
    if (group.path == "/lmq") plan_digest_ = text_of(group.attributes, "plan_digest");
  read_tensors();
  read_units();
  place_units();
  read_ledger();
}

void QuantizedFile::check_format() {
  if (text_of(layout_.root, "lmq_format") != "lmq")
    fail(Errc::unsupported, fmt::format("{}: HDF5, but not written by lmq (attribute lmq_format is missing)", name_));
  const auto major = number_of(layout_.root, "lmq_format_major");
  if (!major) fail(Errc::malformed, fmt::format("{}: attribute lmq_format_major is missing", name_));
  if (*major != 1)
    fail(Errc::unsupported, fmt::format("{}: format version {}, this lmq reads version 1", name_, *major));
}

std::optional<std::size_t> QuantizedFile::find(const std::string& path) const {
  const auto at = std::ranges::lower_bound(layout_.datasets, path, {}, &DatasetLayout::path);
  if (at == layout_.datasets.end() || at->path != path) return std::nullopt;
  return static_cast<std::size_t>(at - layout_.datasets.begin());
}

std::vector<std::byte> QuantizedFile::read_dataset(std::size_t dataset) const {
  const DatasetLayout& layout = layout_.datasets[dataset];
  if (!layout.chunk.empty() || layout.piece_bytes.size() > 1)
    fail(Errc::malformed,
         fmt::format("{}: dataset {} is in chunks, contiguous is expected", name_, printable(layout.path)));
  const std::uint64_t bytes = layout.piece_bytes.empty() ? 0 : layout.piece_bytes[0];
  if (bytes > places_.file_bytes)
    fail(Errc::malformed, fmt::format("{}: dataset {} exceeds the file", name_, printable(layout.path)));
  std::vector<std::byte> content(static_cast<std::size_t>(bytes));
  if (bytes > 0) file_.read(places_.offsets[dataset][0], content);
  return content;
}

Json QuantizedFile::read_json(const std::string& path) const {
  const auto dataset = find(path);
  if (!dataset) fail(Errc::malformed, fmt::format("{}: dataset {} is missing", name_, path));
  const std::vector<std::byte> bytes = read_dataset(*dataset);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return parse_json_text(text, fmt::format("{}: dataset {}", name_, path));
}

template <class T>
std::vector<T> QuantizedFile::read_table(const std::string& path) const {
  const auto dataset = find(path);
  if (!dataset) fail(Errc::malformed, fmt::format("{}: dataset {} is missing", name_, path));
  constexpr DType kType = std::is_same_v<T, double> ? DType::f64 : DType::u64;
  const DatasetLayout& layout = layout_.datasets[*dataset];
  if (layout.dtype != kType || layout.shape.size() != 1)
    fail(Errc::malformed, fmt::format("{}: dataset {} is {} in {} dimensions, expected is a list of {}", name_, path,
                                      lmq::name(layout.dtype), layout.shape.size(), lmq::name(kType)));
  const std::vector<std::byte> bytes = read_dataset(*dataset);
  std::vector<T> values(bytes.size() / sizeof(T));
  if (values.size() != layout.shape[0] || bytes.size() != values.size() * sizeof(T))
    fail(Errc::malformed,
         fmt::format("{}: dataset {} has {} bytes for {} values", name_, path, bytes.size(), layout.shape[0]));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

/// What the report alone says of a tensor.
StoredTensor QuantizedFile::reported_tensor(const Json& entry) const {
  if (!entry.is_object() || !entry.value("name", Json()).is_string())
    fail(Errc::malformed, fmt::format("{}: /lmq/report: entry {} has no name", name_, tensors_.size()));
  StoredTensor tensor;
  TensorLine& line = tensor.line;
  line.name = entry["name"].get<std::string>();
  if (const auto reason = entry.find("reason"); reason != entry.end() && reason->is_string()) line.reason = *reason;
  if (const auto bytes = entry.find("source_bytes"); bytes != entry.end() && bytes->is_number_unsigned())
    line.source_bytes = *bytes;
  tensor.dataset = find("/" + line.name);
  if (tensor.dataset) return tensor;
  tensor.treatment = Treatment::fold;
  line.method = "folded";
  if (const auto dtype = entry.find("dtype"); dtype != entry.end() && dtype->is_string()) line.dtype = *dtype;
  line.shape = reported_shape(entry).value_or(std::vector<std::uint64_t>{});
  if (!product_of(line.shape, line.weights)) line.weights = 0;
  return tensor;
}

/// What the tensor's dataset says of it.
void QuantizedFile::read_dataset_of(StoredTensor& tensor, const Json& entry) const {
  TensorLine& line = tensor.line;
  const DatasetLayout& dataset = layout_.datasets[*tensor.dataset];
  tensor.treatment = dataset.encoded ? Treatment::quantize : Treatment::keep;
  line.dtype = text_of(dataset.attributes, "lmq_dtype");
  const auto dtype = parse_dtype(line.dtype);
  if (!dtype)
    fail(Errc::malformed,
         fmt::format("{}: tensor '{}': lmq_dtype is '{}'", name_, printable(line.name), printable(line.dtype)));
  tensor.dtype = *dtype;
  line.shape = checkpoint_shape(dataset, *dtype);
  if (const auto shape = reported_shape(entry); shape && !dataset.encoded) line.shape = *shape;
  if (!product_of(line.shape, line.weights))
    fail(Errc::malformed, fmt::format("{}: tensor '{}': the shape is too large", name_, printable(line.name)));
  line.method = text_of(dataset.attributes, "lmq_method");
  if (line.reason.empty()) line.reason = text_of(dataset.attributes, "lmq_reason");
  line.bits_per_weight = real_of(dataset.attributes, "lmq_bits_per_weight");
  line.squared_error = real_of(dataset.attributes, "lmq_squared_error");
  line.energy = real_of(dataset.attributes, "lmq_energy");
  line.largest_error = real_of(dataset.attributes, "lmq_largest_error");
  for (const std::uint64_t piece : dataset.piece_bytes) line.stored_bytes += piece;
  tensor.first_unit = number_of(dataset.attributes, "lmq_first_unit").value_or(0);
  tensor.units = number_of(dataset.attributes, "lmq_units").value_or(0);
}

void QuantizedFile::read_tensors() {
  const Json& list = report_.is_object() && report_.contains("tensors") ? report_["tensors"] : report_;
  if (!list.is_array()) fail(Errc::malformed, fmt::format("{}: /lmq/report is no list of tensors", name_));
  std::vector<bool> claimed(layout_.datasets.size(), false);
  for (const Json& entry : list) {
    StoredTensor tensor = reported_tensor(entry);
    if (tensor.dataset) {
      if (claimed[*tensor.dataset])
        fail(Errc::malformed, fmt::format("{}: tensor '{}' is reported twice", name_, printable(tensor.line.name)));
      claimed[*tensor.dataset] = true;
      read_dataset_of(tensor, entry);
    }
    tensors_.push_back(std::move(tensor));
  }
  for (std::size_t d = 0; d < claimed.size(); ++d)
    if (!claimed[d] && !is_ours(layout_.datasets[d].path))
      findings_.push_back(
          fmt::format("{}: dataset {} is not in the file's report", name_, printable(layout_.datasets[d].path)));
}

void QuantizedFile::read_units() {
  const auto u64 = [&](const char* table) { return read_table<std::uint64_t>(std::string("/lmq/units/") + table); };
  const auto f64 = [&](const char* table) { return read_table<double>(std::string("/lmq/units/") + table); };
  const auto tensor = u64("tensor"), begin = u64("begin"), count = u64("count"), bytes = u64("bytes"),
             digest = u64("digest"), source = u64("source_digest");
  const auto squared = f64("squared_error"), weighted = f64("weighted_error"), energy = f64("energy"),
             largest = f64("largest_error");
  for (const std::size_t size : {begin.size(), count.size(), bytes.size(), digest.size(), source.size(), squared.size(),
                                 weighted.size(), energy.size(), largest.size()})
    if (size != tensor.size())
      fail(Errc::malformed, fmt::format("{}: the tables in /lmq/units differ in length", name_));
  units_.resize(tensor.size());
  for (std::size_t u = 0; u < units_.size(); ++u) {
    if (tensor[u] >= tensors_.size())
      fail(Errc::malformed,
           fmt::format("{}: unit {} belongs to tensor {} of {}", name_, u, tensor[u], tensors_.size()));
    units_[u] = {.tensor = tensor[u],
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

/// What is wrong with the units of a tensor, `seen` of which are in the tables; empty: nothing.
std::string QuantizedFile::fault_of_units(std::size_t t, std::uint64_t seen) const {
  const StoredTensor& tensor = tensors_[t];
  if (seen != tensor.units) return fmt::format("{} units in the tables, lmq_units says {}", seen, tensor.units);
  if (tensor.units == 0) return tensor.dataset && tensor.count() > 0 ? "no unit holds its elements" : "";
  if (!tensor.dataset || tensor.first_unit > units_.size() || tensor.units > units_.size() - tensor.first_unit)
    return "its units are not in the tables";
  const DatasetLayout& dataset = layout_.datasets[*tensor.dataset];
  const bool encoded = dataset.encoded;
  if (encoded ? dataset.piece_bytes.size() != tensor.units : dataset.piece_bytes.size() != 1)
    return fmt::format("{} stored pieces for {} units", dataset.piece_bytes.size(), tensor.units);
  std::uint64_t element = 0, bytes = 0;
  bool right = true;
  for (std::uint64_t k = 0; k < tensor.units && right; ++k) {
    const StoredUnit& unit = units_[tensor.first_unit + k];
    right = unit.tensor == t && unit.begin == element && unit.count > 0 && checked_add(element, unit.count, element) &&
            checked_add(bytes, unit.bytes, bytes) && (!encoded || unit.bytes == dataset.piece_bytes[k]);
  }
  if (!right || element != tensor.count() || (!encoded && bytes != dataset.piece_bytes[0]))
    return "its units do not tile it";
  return "";
}

/// The places of all units; what does not fit together is a finding, and its units are marked with offset 0.
void QuantizedFile::place_units() {
  std::vector<std::uint64_t> seen(tensors_.size(), 0);
  for (const StoredUnit& unit : units_) ++seen[unit.tensor];
  for (std::size_t t = 0; t < tensors_.size(); ++t) {
    const StoredTensor& tensor = tensors_[t];
    if (const std::string fault = fault_of_units(t, seen[t]); !fault.empty()) {
      findings_.push_back(fmt::format("{}, tensor '{}': {}", name_, printable(tensor.line.name), fault));
      continue;
    }
    std::uint64_t run = 0;
    for (std::uint64_t k = 0; k < tensor.units; ++k) {
      StoredUnit& unit = units_[tensor.first_unit + k];
      const auto& offsets = places_.offsets[*tensor.dataset];
      unit.offset = layout_.datasets[*tensor.dataset].encoded ? offsets[k] : offsets[0] + run;
      run += unit.bytes;
    }
  }
}

void QuantizedFile::read_ledger() {
  const auto dataset = find("/lmq/ledger");
  const auto bytes = read_table<std::uint64_t>("/lmq/ledger");
  std::string names = text_of(layout_.datasets[*dataset].attributes, "names");
  for (const std::uint64_t value : bytes) {
    const std::size_t comma = std::min(names.find(','), names.size());
    ledger_.push_back({names.substr(0, comma), value});
    names.erase(0, comma + 1);
  }
}

std::vector<TensorLine> QuantizedFile::lines() const {
  std::vector<TensorLine> lines;
  for (const StoredTensor& tensor : tensors_) lines.push_back(tensor.line);
  return lines;
}

void QuantizedFile::read(const StoredUnit& unit, std::vector<std::byte>& bytes) const {
  if (unit.offset == 0 || unit.bytes > places_.file_bytes)
    fail(Errc::malformed, fmt::format("{}: no place in the file", place(unit)));
  bytes.resize(static_cast<std::size_t>(unit.bytes));
  file_.read(unit.offset, bytes);
}

std::string QuantizedFile::place(const StoredUnit& unit) const {
  return fmt::format("{}, tensor '{}', elements {} to {}", name_, printable(tensors_[unit.tensor].line.name),
                     unit.begin, unit.begin + unit.count);
}

}  // namespace lmq::app
