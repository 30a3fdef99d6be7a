#include "lmq/container/quantized_file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "deflate.hpp"
#include "lmq/base/math.hpp"
#include "lmq/base/text.hpp"
#include "lmq/container/names.hpp"
#include "seal.hpp"
#include "tables.hpp"

namespace lmq {
namespace {

template <class T>
const T* root_value(const FileLayout& layout, const char* name) {
  const auto at = std::ranges::find(layout.root, name, &Attribute::name);
  return at == layout.root.end() ? nullptr : std::get_if<T>(&at->value);
}

/// The dataset's bytes once they are read and inflated; nothing when that overflows.
std::optional<std::uint64_t> plain_bytes(const DatasetLayout& dataset) {
  std::uint64_t count = 0, all = 0;
  if (!product_of(dataset.shape, count) || !checked_mul(count, bits(dataset.dtype), all)) return std::nullopt;
  return ceil_div(all, 8);
}

}  // namespace

QuantizedFile::QuantizedFile(const std::filesystem::path& path, LayoutFormat& format)
    : name_(printable(path.string())), file_(path, File::Mode::read) {
  const Seal seal = read_seal(file_);
  try {
    open_layout(format, seal);
    check_format();
    read_tables();
    place_units();
  } catch (const Error& error) {  // behind a broken seal whatever is wrong is damage
    if (seal.state != Seal::State::broken || error.code == Errc::io) throw;
    std::string what = error.what();
    if (what.starts_with(name_ + ": ")) what.erase(0, name_.size() + 2);
    fail(Errc::malformed, fmt::format("{}: {}; {}", name_, seal.what, what));
  }
}

void QuantizedFile::open_layout(LayoutFormat& format, const Seal& seal) {
  const bool whole = seal.state == Seal::State::whole;
  LayoutFormat::Existing existing = whole ? format.open(path()) : format.open_guarded(path());
  layout_ = std::move(existing.layout);
  places_ = std::move(existing.places);
  if (whole) stored_digest_ = seal.stored_digest;
  if (seal.state == Seal::State::broken) findings_.push_back(fmt::format("{}: {}", name_, seal.what));
  if (seal.state == Seal::State::missing && root_value<std::vector<std::uint64_t>>(layout_, container::kFormat))
    findings_.push_back(fmt::format(
        "{}: the seal behind its last byte is missing: it was cut, damaged or rewritten by another program", name_));
}

void QuantizedFile::check_format() {
  const auto* versions = root_value<std::vector<std::uint64_t>>(layout_, container::kFormat);
  const auto* text = root_value<std::string>(layout_, container::kFormat);
  std::uint64_t major = 0;
  if (versions != nullptr && versions->size() == 2) {
    major = versions->at(0);
  } else if (text != nullptr && *text == "lmq") {  // version 1
    const auto* number = root_value<std::uint64_t>(layout_, "lmq_format_major");
    if (number == nullptr) fail(Errc::malformed, fmt::format("{}: attribute lmq_format_major is missing", name_));
    major = *number;
  } else {
    fail(Errc::unsupported, fmt::format("{}: HDF5, but not written by lmq (attribute lmq_format is missing)", name_));
  }
  if (major < 1 || major > container::kMajor)
    fail(Errc::unsupported,
         fmt::format("{}: format version {}, this lmq reads versions 1 to {}", name_, major, container::kMajor));
  version_ = static_cast<unsigned>(major);
}

void QuantizedFile::read_tables() {
  StoredTables tables = version_ == 1 ? read_version1(*this) : read_version2(*this);
  recipe_ = std::move(tables.recipe);
  provenance_ = std::move(tables.provenance);
  tensors_ = std::move(tables.tensors);
  units_ = std::move(tables.units);
  ledger_ = std::move(tables.ledger);
  plan_digest_ = std::move(tables.plan_digest);
  std::ranges::move(tables.findings, std::back_inserter(findings_));
}

std::optional<std::size_t> QuantizedFile::find(const std::string& path) const {
  const auto at = std::ranges::lower_bound(layout_.datasets, path, {}, &DatasetLayout::path);
  if (at == layout_.datasets.end() || at->path != path) return std::nullopt;
  return static_cast<std::size_t>(at - layout_.datasets.begin());
}

std::vector<std::byte> QuantizedFile::read_dataset(std::size_t dataset) const {
  const DatasetLayout& layout = layout_.datasets[dataset];
  const std::string place = fmt::format("{}: dataset {}", name_, printable(layout.path));
  if (!layout.chunk.empty() || layout.piece_bytes.size() != 1)
    fail(Errc::malformed, fmt::format("{} is in chunks, one piece is expected", place));
  const std::uint64_t bytes = layout.piece_bytes[0];
  if (bytes > places_.file_bytes) fail(Errc::malformed, fmt::format("{} exceeds the file", place));
  std::vector<std::byte> content(static_cast<std::size_t>(bytes));
  if (bytes > 0) file_.read(places_.offsets[dataset][0], content);
  if (!layout.deflated) return content;
  const auto plain = plain_bytes(layout);
  if (!plain) fail(Errc::malformed, fmt::format("{}: its size overflows", place));
  content = inflate(content, *plain, place);
  return layout.text || bits(layout.dtype) <= 8 ? content : unshuffle(content, bits(layout.dtype) / 8);
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

CodebookList::CodebookList(const QuantizedFile& file) : file_(file) {
  const auto dataset = file.version() == 1 ? std::nullopt : file.find(container::kCodebooks);
  if (!dataset) return;
  const auto& shape = file.layout().datasets[*dataset].shape;
  if (shape.size() != 2) return;  // then no tensor has a row of it
  width_ = static_cast<std::size_t>(shape[1]);
  bytes_ = file.read_dataset(*dataset);
  if (bytes_.size() / sizeof(float) != shape[0] * shape[1])
    fail(Errc::malformed, fmt::format("{}: dataset {} has {} bytes for {} x {} numbers", file.name(),
                                      container::kCodebooks, bytes_.size(), shape[0], shape[1]));
}

std::optional<std::vector<float>> CodebookList::of(const StoredTensor& tensor) const {
  if (file_.version() == 1) return version1_codebook(file_, tensor.line.name);
  if (!tensor.codebook || bytes_.empty()) return std::nullopt;
  std::vector<float> row(width_);
  std::memcpy(row.data(), bytes_.data() + *tensor.codebook * width_ * sizeof(float), width_ * sizeof(float));
  row.erase(std::ranges::find_if(row, [](float level) { return level != level; }), row.end());
  return row;
}

}  // namespace lmq
