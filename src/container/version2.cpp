// Version 2 of the file: one text with a column for every fact (docs/format.md, section 1.1).
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "lmq/base/math.hpp"
#include "lmq/base/text.hpp"
#include "lmq/container/names.hpp"
#include "lmq/io/json_text.hpp"
#include "tables.hpp"

namespace lmq {
namespace {

namespace key = container;
using Json = nlohmann::json;

/// An object of columns, each of `size` values; a column that is missing is one of nothing.
class ColumnReader {
 public:
  ColumnReader(const QuantizedFile& file, const Json& table, const char* name)
      : place_(file.name() + ", " + key::kTensors) {
    const auto found = table.find(name);
    if (found == table.end() || !found->is_object()) refuse(fmt::format("'{}' is no object of columns", name));
    columns_ = *found;
    for (const auto& [column, values] : columns_.items()) {
      if (!values.is_array()) refuse(fmt::format("column '{}' is no list", printable(column)));
      if (column != columns_.begin().key() && values.size() != size_)
        refuse(fmt::format("column '{}' has {} values, others {}", printable(column), values.size(), size_));
      size_ = values.size();
    }
  }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] const Json& at(const char* column, std::size_t i) const {
    static const Json nothing;
    const auto found = columns_.find(column);
    return found == columns_.end() ? nothing : (*found)[i];
  }
  [[nodiscard]] std::string text(const char* column, std::size_t i) const {
    const Json& value = at(column, i);
    return value.is_string() ? value.get<std::string>() : std::string();
  }
  [[nodiscard]] std::optional<std::uint64_t> number(const char* column, std::size_t i) const {
    const Json& value = at(column, i);
    if (value.is_null()) return std::nullopt;
    if (!value.is_number_unsigned()) refuse(fmt::format("column '{}', value {}: no whole number", column, i));
    return value.get<std::uint64_t>();
  }
  [[nodiscard]] std::optional<double> real(const char* column, std::size_t i) const {
    const Json& value = at(column, i);
    if (value.is_null()) return std::nullopt;
    if (value.is_number()) return value.get<double>();
    const std::string text = value.is_string() ? value.get<std::string>() : "";
    if (text == "inf") return std::numeric_limits<double>::infinity();
    if (text == "-inf") return -std::numeric_limits<double>::infinity();
    if (text == "nan") return std::numeric_limits<double>::quiet_NaN();
    refuse(fmt::format("column '{}', value {}: no number", column, i));
  }
  [[nodiscard]] std::vector<std::uint64_t> shape(std::size_t i) const {
    const Json& value = at(key::kShape, i);
    if (!value.is_array() || !std::ranges::all_of(value, [](const Json& dim) { return dim.is_number_unsigned(); }))
      refuse(fmt::format("column '{}', value {}: no shape", key::kShape, i));
    return value.get<std::vector<std::uint64_t>>();
  }
  [[noreturn]] void refuse(const std::string& what) const { fail(Errc::malformed, place_ + ": " + what); }

 private:
  std::string place_;
  Json columns_;
  std::size_t size_ = 0;
};

class Reader2 {
 public:
  explicit Reader2(const QuantizedFile& file)
      : file_(file),
        table_(read_json(file, key::kTensors)),
        columns_(file, checked(table_, file), key::kTensorColumns),
        units_(file, table_, key::kUnitColumns) {}

  StoredTables run() {
    tables_.recipe = read_json(file_, key::kRecipe);
    if (const auto digest = table_.find(key::kPlanDigest); digest != table_.end() && digest->is_string())
      tables_.plan_digest = *digest;
    read_digests();
    for (std::size_t t = 0; t < columns_.size(); ++t) read_tensor(t);
    if (tables_.units.size() != digests_.size())
      columns_.refuse(fmt::format("the tensors have {} units, {} has {} digests", tables_.units.size(),
                                  key::kSourceDigests, digests_.size()));
    if (next_ != units_.size())
      columns_.refuse(
          fmt::format("{} units of tensors of several, '{}' has {}", next_, key::kUnitColumns, units_.size()));
    read_provenance();
    read_ledger();
    find_strangers(file_, tables_.tensors, tables_.findings);
    return std::move(tables_);
  }

 private:
  static const Json& checked(const Json& table, const QuantizedFile& file) {
    if (!table.is_object()) fail(Errc::malformed, fmt::format("{}: {} is no object", file.name(), key::kTensors));
    return table;
  }

  void read_digests() {
    const auto dataset = file_.find(key::kSourceDigests);
    if (!dataset) fail(Errc::malformed, fmt::format("{}: dataset {} is missing", file_.name(), key::kSourceDigests));
    if (file_.layout().datasets[*dataset].dtype != DType::u64)
      fail(Errc::malformed, fmt::format("{}: dataset {} is no list of U64", file_.name(), key::kSourceDigests));
    const std::vector<std::byte> bytes = file_.read_dataset(*dataset);
    digests_.resize(bytes.size() / sizeof(std::uint64_t));
    if (!digests_.empty()) std::memcpy(digests_.data(), bytes.data(), digests_.size() * sizeof(std::uint64_t));
  }

  void read_tensor(std::size_t t) {
    StoredTensor tensor;
    TensorLine& line = tensor.line;
    line.name = columns_.text(key::kName, t);
    line.dtype = columns_.text(key::kDtype, t);
    line.shape = columns_.shape(t);
    line.method = columns_.text(key::kMethodName, t);
    line.reason = columns_.text(key::kReason, t);
    line.source_bytes = columns_.number(key::kSourceBytes, t).value_or(0);
    const auto dtype = parse_dtype(line.dtype);
    if (!dtype) refuse(line, fmt::format("'{}' is no type", printable(line.dtype)));
    tensor.dtype = *dtype;
    if (!product_of(line.shape, line.weights)) refuse(line, "the shape is too large");
    tensor.first_unit = tables_.units.size();
    if (line.method == "folded") {
      tensor.treatment = Treatment::fold;
    } else {
      tensor.dataset = file_.find("/" + line.name);
      if (!tensor.dataset) refuse(line, "its dataset is missing");
      read_dataset_of(t, tensor);
    }
    tensor.units = tables_.units.size() - tensor.first_unit;
    read_statistics(t, tensor);
    tables_.tensors.push_back(std::move(tensor));
  }

  void read_dataset_of(std::size_t t, StoredTensor& tensor) {
    const DatasetLayout& dataset = file_.layout().datasets[*tensor.dataset];
    TensorLine& line = tensor.line;
    tensor.treatment = line.quantized() ? Treatment::quantize : Treatment::keep;
    if (line.quantized() && !dataset.encoded) refuse_stripped(file_, line);
    if (dataset.encoded && !line.quantized()) refuse(line, "the table says it is kept, its dataset has records");
    if (checkpoint_shape(dataset, tensor.dtype) != line.shape) refuse(line, "its dataset has another shape");
    if (tensor.treatment == Treatment::keep && dataset.dtype != tensor.dtype)
      refuse(line, "its dataset has another type");
    for (const std::uint64_t piece : dataset.piece_bytes) line.stored_bytes += piece;
    if (line.weights > 0)
      line.bits_per_weight = 8 * static_cast<double>(line.stored_bytes) / static_cast<double>(line.weights);
    if (tensor.treatment == Treatment::quantize)
      add_records(dataset, line);
    else
      add_kept(t, dataset, line);
    if (const auto row = columns_.number(key::kCodebook, t)) tensor.codebook = checked_row(line, *row);
  }

  std::uint64_t checked_row(const TensorLine& line, std::uint64_t row) {
    const auto books = file_.find(key::kCodebooks);
    const bool there = books && file_.layout().datasets[*books].shape.size() == 2 &&
                       file_.layout().datasets[*books].dtype == DType::f32 &&
                       row < file_.layout().datasets[*books].shape[0];
    if (!there) refuse(line, fmt::format("{} has no row {}", key::kCodebooks, row));
    return row;
  }

  void add_unit(std::uint64_t begin, std::uint64_t count, std::uint64_t bytes, bool kept) {
    if (tables_.units.size() >= digests_.size())
      columns_.refuse(fmt::format("the tensors have more units than {} has digests", key::kSourceDigests));
    StoredUnit unit;
    unit.tensor = tables_.tensors.size();
    unit.begin = begin;
    unit.count = count;
    unit.bytes = bytes;
    unit.source_digest = digests_[tables_.units.size()];
    if (kept) unit.digest = unit.source_digest;
    tables_.units.push_back(unit);
  }

  /// A unit for each chunk, which must be whole runs of elements.
  void add_records(const DatasetLayout& dataset, const TensorLine& line) {
    std::size_t cut = 0;  // the dimension that chunks cut; they have one entry of those before, all of those behind
    while (cut < dataset.chunk.size() && dataset.chunk[cut] == 1) ++cut;
    for (std::size_t i = cut + 1; i < dataset.chunk.size(); ++i)
      if (dataset.chunk[i] != dataset.shape[i]) refuse(line, "its chunks are no runs of elements");
    std::uint64_t inner = 1, begin = 0;
    for (std::size_t i = cut + 1; i < dataset.shape.size(); ++i) inner *= dataset.shape[i];
    const std::uint64_t length = cut < dataset.shape.size() ? dataset.shape[cut] : 1,
                        step = cut < dataset.shape.size() ? dataset.chunk[cut] : 1, in_row = ceil_div(length, step);
    for (std::size_t k = 0; k < dataset.piece_bytes.size(); ++k) {
      const std::uint64_t at = k % in_row * step, count = std::min(step, length - at) * inner;
      add_unit(begin, count, dataset.piece_bytes[k], false);
      begin += count;
    }
  }

  void add_kept(std::size_t t, const DatasetLayout& dataset, const TensorLine& line) {
    const std::uint64_t count = line.weights, width = bits(dataset.dtype);
    const std::uint64_t step = columns_.number(key::kUnitElements, t).value_or(count);
    if (count > 0 && (step == 0 || (step < count && step * width % 8 != 0)))
      refuse(line, fmt::format("units of {} elements are no whole bytes", step));
    for (std::uint64_t begin = 0; begin < count; begin += step) {
      const std::uint64_t length = std::min(step, count - begin);
      add_unit(begin, length, ceil_div(length * width, 8), true);
    }
  }

  void read_statistics(std::size_t t, StoredTensor& tensor) {
    if (tensor.treatment != Treatment::quantize) return;
    TensorLine& line = tensor.line;
    const auto real = [&](const ColumnReader& from, const char* column, std::size_t i) {
      return from.real(column, i).value_or(std::numeric_limits<double>::quiet_NaN());
    };
    line.squared_error = real(columns_, key::kSquaredError, t);
    line.weighted_error = columns_.real(key::kWeightedError, t);
    line.weighted_energy = columns_.real(key::kWeightedEnergy, t);
    line.energy = real(columns_, key::kEnergy, t);
    line.largest_error = real(columns_, key::kLargestError, t);
    line.entropy_bits = columns_.real(key::kEntropyBits, t).value_or(0);
    for (std::uint64_t u = tensor.first_unit; u < tensor.first_unit + tensor.units; ++u) {
      const bool alone = tensor.units == 1;
      if (!alone && next_ >= units_.size()) columns_.refuse(fmt::format("'{}' ends early", key::kUnitColumns));
      const ColumnReader& from = alone ? columns_ : units_;
      const std::size_t i = alone ? t : next_++;
      StoredUnit& unit = tables_.units[u];
      unit.squared_error = real(from, key::kSquaredError, i);
      unit.weighted_error = from.real(key::kWeightedError, i).value_or(unit.squared_error);
      unit.energy = real(from, key::kEnergy, i);
      unit.largest_error = real(from, key::kLargestError, i);
    }
  }

  void read_provenance() {
    tables_.provenance = read_json(file_, key::kProvenance);
    if (!tables_.provenance.is_object()) return;
    const auto packed = tables_.provenance.find("shard_of");
    if (packed == tables_.provenance.end() || !packed->is_array()) return;
    Json shard_of = Json::object();
    for (std::size_t t = 0; t < std::min(packed->size(), tables_.tensors.size()); ++t)
      shard_of[tables_.tensors[t].line.name] = (*packed)[t];
    *packed = std::move(shard_of);
  }

  void read_ledger() {
    std::uint64_t records = 0, raw = 0, side = 0;
    const Json purposes = table_.value(key::kRecordBytes, Json::object());
    for (const char* purpose : key::kPurposes) {
      const Json bytes = purposes.is_object() ? purposes.value(purpose, Json()) : Json();
      if (!bytes.is_number_unsigned())
        columns_.refuse(fmt::format("'{}' has no number of '{}'", key::kRecordBytes, purpose));
      tables_.ledger.push_back({purpose, bytes.get<std::uint64_t>()});
    }
    const std::string ours = std::string(key::kGroup) + "/";
    for (const DatasetLayout& dataset : file_.layout().datasets)
      for (const std::uint64_t bytes : dataset.piece_bytes)
        (dataset.path.starts_with(ours) ? side : dataset.encoded ? records : raw) += bytes;
    tables_.ledger.push_back({"raw", raw});
    tables_.ledger.push_back({"side", side});
    tables_.ledger.push_back({"metadata", file_.places().file_bytes - records - raw - side});
  }

  [[noreturn]] void refuse(const TensorLine& line, const std::string& what) const {
    fail(Errc::malformed, fmt::format("{}, tensor '{}': {}", file_.name(), printable(line.name), what));
  }

  const QuantizedFile& file_;
  Json table_;
  ColumnReader columns_, units_;
  std::vector<std::uint64_t> digests_;
  std::size_t next_ = 0;  // in units_
  StoredTables tables_;
};

}  // namespace

void refuse_stripped(const QuantizedFile& file, const TensorLine& line) {
  fail(
      Errc::malformed,
      fmt::format("{}, tensor '{}': the filter was stripped: its dataset holds plain numbers, its records are gone, as "
                  "h5repack leaves it",
                  file.name(), printable(line.name)));
}

Json read_json(const QuantizedFile& file, const std::string& path) {
  const auto dataset = file.find(path);
  if (!dataset) fail(Errc::malformed, fmt::format("{}: dataset {} is missing", file.name(), path));
  const std::vector<std::byte> bytes = file.read_dataset(*dataset);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return parse_json_text(text, fmt::format("{}: dataset {}", file.name(), path));
}

void find_strangers(const QuantizedFile& file, const std::vector<StoredTensor>& tensors,
                    std::vector<std::string>& findings) {
  const auto& datasets = file.layout().datasets;
  std::vector<bool> known(datasets.size(), false);
  for (const StoredTensor& tensor : tensors)
    if (tensor.dataset) known[*tensor.dataset] = true;
  const std::string ours = std::string(key::kGroup) + "/";
  for (std::size_t d = 0; d < datasets.size(); ++d)
    if (!known[d] && !datasets[d].path.starts_with(ours))
      findings.push_back(fmt::format("{}: dataset {} is not in the file's table of tensors", file.name(),
                                     printable(datasets[d].path)));
}

/// Shape in the checkpoint: HDF5 holds C64 with a last dimension of two floats.
std::vector<std::uint64_t> checkpoint_shape(const DatasetLayout& dataset, DType dtype) {
  std::vector<std::uint64_t> shape = dataset.shape;
  if (dtype == DType::c64 && !shape.empty() && dataset.dtype != DType::c64) shape.pop_back();
  return shape;
}

bool product_of(const std::vector<std::uint64_t>& shape, std::uint64_t& product) {
  product = 1;
  return std::ranges::all_of(shape, [&](std::uint64_t dim) { return checked_mul(product, dim, product); });
}

StoredTables read_version2(const QuantizedFile& file) { return Reader2(file).run(); }

}  // namespace lmq
