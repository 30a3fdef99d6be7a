#include "export_source.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "input.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/codec/record.hpp"
#include "lmq/io/companions.hpp"
#include "lmq/io_hdf5/hdf5_format.hpp"
#include "lmq/kernels/widen.hpp"
#include "lmq/run/signals.hpp"
#include "open_output.hpp"

namespace lmq::app {
namespace {

constexpr std::uint64_t kPieceElements = std::uint64_t{1} << 20;

std::string text_of(const nlohmann::json& object, const char* key) {
  if (!object.is_object() || !object.contains(key) || !object[key].is_string()) return {};
  return object[key].get<std::string>();
}

}  // namespace

void heed_signals() {
  if (const int signal = SignalGuard::raised(); signal != 0)
    fail(Errc::interrupted, fmt::format("stopped by signal {} ({}): nothing was made; run the same command again",
                                        signal, ::strsignal(signal)));
}

std::uint64_t ExportSource::Tensor::count() const noexcept {
  std::uint64_t product = 1;
  for (const std::uint64_t dim : shape) product *= dim;
  return product;
}

ExportSource::ExportSource(const std::filesystem::path& path) {
  std::error_code ignored;
  if (std::filesystem::is_regular_file(path, ignored) && is_hdf5(path) && !is_foreign_hdf5(path)) {
    file_ = std::make_unique<QuantizedFile>(open_output(path));
    if (!file_->findings().empty()) fail(Errc::malformed, file_->findings()[0]);
    const nlohmann::json& provenance = file_->provenance();
    format_ = text_of(provenance, "format");
    kept_ = std::make_unique<KeptFp8>(*file_);
    outlived_ = outlived_tensors(*file_, kept_.get());
    const nlohmann::json scaled =
        provenance.is_object() ? provenance.value("scale_of", nlohmann::json()) : nlohmann::json();
    for (std::size_t t = 0; t < file_->tensors().size(); ++t) {
      const StoredTensor& tensor = file_->tensors()[t];
      const std::string& name = tensor.line.name;
      if (tensor.treatment == Treatment::fold || outlived_.contains(name) || kept_->scales().contains(name)) continue;
      const bool quantized = tensor.treatment == Treatment::quantize;
      const bool folded = kept_->weights().contains(name) || (quantized && scaled.is_object() && scaled.contains(name));
      tensors_.push_back({name, folded ? DType::bf16 : tensor.dtype, tensor.line.shape, quantized, t});
    }
    return;
  }
  reader_ = open_input(path);
  const Catalogue& catalogue = reader_->catalogue();
  format_ = catalogue.format;
  std::set<std::string> folded;
  for (const TensorInfo& tensor : catalogue.tensors)
    if (tensor.scale >= 0) folded.insert(tensor.name);
  outlived_ = outlived_companions(catalogue, folded);
  for (std::size_t t = 0; t < catalogue.tensors.size(); ++t) {
    const TensorInfo& tensor = catalogue.tensors[t];
    if (tensor.scales >= 0 || outlived_.contains(tensor.name)) continue;  // folded into what it scales, or of no use
    tensors_.push_back({tensor.name, tensor.scale >= 0 ? DType::bf16 : tensor.dtype, tensor.shape, false, t});
  }
}

void ExportSource::stored_floats(const Tensor& tensor, const std::function<void(std::span<const float>)>& take) const {
  const StoredTensor& stored = file_->tensors()[tensor.index];
  if (!tensor.quantized) return kept_->floats(stored, take);
  std::vector<std::byte> scratch;
  std::vector<float> values;
  each_stored_unit(*file_, stored, scratch, [&](const StoredUnit& unit, std::span<const std::byte> bytes) {
    const std::string place = file_->place(unit);
    if (const auto header = read_record_header(bytes, place); header.count != unit.count)
      fail(Errc::malformed, fmt::format("{}: the record holds {} weights", place, header.count));
    values.resize(static_cast<std::size_t>(unit.count));
    decode_record_values(bytes, values, place);
    take(values);
  });
}

void ExportSource::each_piece(const Tensor& tensor, const std::function<void(const TensorView&)>& take) const {
  std::vector<std::byte> scratch;
  if (reader_ != nullptr) {
    const TensorInfo& info = reader_->catalogue().tensors[tensor.index];
    for (std::uint64_t begin = 0; begin < info.count(); begin += kPieceElements) {
      heed_signals();
      take(reader_->view(info, begin, std::min(kPieceElements, info.count() - begin), scratch));
    }
    return;
  }
  const StoredTensor& stored = file_->tensors()[tensor.index];
  each_stored_unit(*file_, stored, scratch, [&](const StoredUnit& unit, std::span<const std::byte> bytes) {
    take({stored.dtype, bytes, static_cast<std::size_t>(unit.count)});
  });
}

bool ExportSource::decodes(const Tensor& tensor) const {
  return tensor.quantized || (kept_ != nullptr && kept_->weights().contains(tensor.name));
}

void ExportSource::floats(const Tensor& tensor, const std::function<void(std::span<const float>)>& take) const {
  if (decodes(tensor)) return stored_floats(tensor, take);
  std::vector<float> values;
  each_piece(tensor, [&](const TensorView& view) {
    values.resize(view.count);
    widen(view.dtype, view.bytes.first(view.count * bits(view.dtype) / 8), values);
    take(values);
  });
}

void ExportSource::blocks(const Tensor& tensor, std::size_t elements,
                          const std::function<void(std::span<const float>)>& take) const {
  std::vector<float> rest;
  floats(tensor, [&](std::span<const float> values) {
    if (!rest.empty()) {
      const std::size_t more = std::min(values.size(), elements - rest.size());
      rest.insert(rest.end(), values.begin(), values.begin() + static_cast<std::ptrdiff_t>(more));
      values = values.subspan(more);
      if (rest.size() < elements) return;
      take(rest);
      rest.clear();
    }
    const std::size_t whole = values.size() / elements * elements;
    if (whole > 0) take(values.first(whole));
    rest.assign(values.begin() + static_cast<std::ptrdiff_t>(whole), values.end());
  });
}

void ExportSource::bytes(const Tensor& tensor, const std::function<void(std::span<const std::byte>)>& take,
                         double& rounding) const {
  std::vector<std::byte> narrow;
  std::vector<float> back;
  const auto rounded = [&](std::span<const float> values) {
    narrow.resize(values.size() * bits(tensor.dtype) / 8);
    narrow_to(tensor.dtype, values, narrow);
    back.resize(values.size());
    widen(tensor.dtype, narrow, back);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double e = double{values[i]} - double{back[i]};
      rounding += e * e;
    }
    take(narrow);
  };
  if (decodes(tensor)) return stored_floats(tensor, rounded);
  std::vector<float> values;
  each_piece(tensor, [&](const TensorView& view) {
    if (view.dtype == tensor.dtype) return take(view.bytes);
    values.resize(view.count);
    widen(view.dtype, view.bytes.first(view.count * bits(view.dtype) / 8), values);
    rounded(values);
  });
}

Catalogue catalogue_of(const QuantizedFile& file) {
  Catalogue catalogue;
  for (const StoredTensor& tensor : file.tensors()) {
    TensorInfo info;
    info.name = tensor.line.name, info.dtype = tensor.dtype, info.shape = tensor.line.shape;
    if (tensor.treatment == Treatment::fold) info.scales = 0;
    catalogue.tensors.push_back(std::move(info));
  }
  std::ranges::sort(catalogue.tensors, {}, &TensorInfo::name);
  return catalogue;
}

std::set<std::string> outlived_tensors(const QuantizedFile& file, const KeptFp8* kept) {
  Catalogue catalogue = catalogue_of(file);
  std::set<std::string> folded;
  if (kept != nullptr) {
    folded = kept->weights();
    for (TensorInfo& tensor : catalogue.tensors)
      if (kept->scales().contains(tensor.name)) tensor.scales = 0;
  }
  const nlohmann::json& provenance = file.provenance();
  const nlohmann::json scaled =
      provenance.is_object() ? provenance.value("scale_of", nlohmann::json()) : nlohmann::json();
  for (const StoredTensor& tensor : file.tensors())
    if (tensor.treatment == Treatment::quantize && scaled.is_object() && scaled.contains(tensor.line.name))
      folded.insert(tensor.line.name);
  return outlived_companions(catalogue, folded);
}

std::string outlived_text(const std::set<std::string>& names) {
  return names.empty() ? ""
                       : fmt::format("without what told of FP8 weights that are folded: {}\n",
                                     printable(fmt::format("{}", fmt::join(names, ", ")), 1000));
}

}  // namespace lmq::app
