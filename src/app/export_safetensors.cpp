#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>

#include "export_files.hpp"
#include "export_formats.hpp"
#include "export_source.hpp"
#include "lmq/base/text.hpp"
#include "lmq/codec/record.hpp"
#include "lmq/io/companions.hpp"
#include "lmq/io/json_text.hpp"
#include "lmq/io/safetensors_writer.hpp"
#include "lmq/kernels/widen.hpp"
#include "lmq/quant/unit.hpp"
#include "open_output.hpp"
#include "table.hpp"
#include "terminal.hpp"
#include "version.hpp"

namespace lmq::app {
namespace {

using Append = std::function<void(std::span<const std::byte>)>;

/// Takes each key of the source's "__metadata__", of all shards.
void each_metadata(const QuantizedFile& file, const std::function<void(const std::string&)>& take) {
  const nlohmann::json& provenance = file.provenance();
  if (!provenance.is_object()) return;
  const auto look = [&](const nlohmann::json& owner) {
    const auto metadata = owner.is_object() ? owner.find("metadata") : owner.end();
    if (metadata == owner.end() || !metadata->is_object()) return;
    for (const auto& [key, value] : metadata->items()) take(key);
  };
  look(provenance);
  if (const auto shards = provenance.find("shards"); shards != provenance.end() && shards->is_array())
    for (const auto& shard : *shards) look(shard);
}

/// Writes dequantized tensors one unit at a time, and sums up what narrowing costs.
class Exporter {
 public:
  explicit Exporter(const QuantizedFile& file) : file_(file), kept_(file) {
    const nlohmann::json& provenance = file.provenance();
    if (provenance.is_object() && provenance.value("scale_of", nlohmann::json()).is_object())
      for (const auto& [name, scale] : provenance["scale_of"].items()) scaled_.insert(name);
    for (std::size_t t = 0; t < file.tensors().size(); ++t) index_[file.tensors()[t].line.name] = t;
    const bool any_folded = std::ranges::any_of(file.tensors(), [&](const StoredTensor& tensor) {
      return tensor.treatment == Treatment::quantize && scaled_.contains(tensor.line.name);
    });
    restores_ = any_folded && !describes_itself();
    outlived_ = outlived_tensors(file, restores_ ? &kept_ : nullptr);
    for (const StoredUnit& unit : file.units()) all_ += static_cast<double>(unit.count);
  }

  /// Block scales are folded into the values, so their FP8 type no longer fits. Where they are for one weight they are
  /// for all, kept ones too: the description that loaders scale them by goes.
  [[nodiscard]] bool unfolded(const StoredTensor& tensor) const {
    if (tensor.treatment == Treatment::quantize) return scaled_.contains(tensor.line.name);
    return restores_ && kept_.weights().contains(tensor.line.name);
  }
  /// Weights that stay quantized by their own scheme although nothing in the export describes it any more, ascending.
  [[nodiscard]] std::vector<std::string> undescribed() const {
    const bool folds = std::ranges::any_of(file_.tensors(), [&](const StoredTensor& t) { return unfolded(t); });
    std::set<std::string> names;
    if (!folds || describes_itself()) return {};
    const Catalogue catalogue = catalogue_of(file_);
    for (const std::int64_t owner : find_companions(catalogue)) {
      if (owner < 0) continue;
      const std::string& name = catalogue.tensors[static_cast<std::size_t>(owner)].name;
      const StoredTensor& tensor = file_.tensors()[index_.at(name)];
      if (tensor.treatment == Treatment::keep && !unfolded(tensor)) names.insert(name);
    }
    return {names.begin(), names.end()};
  }
  /// Are there weights that a description of quantized weights may mean: kept as they were, of integers or 8 bits?
  [[nodiscard]] bool keeps_quantized() const {
    return std::ranges::any_of(file_.tensors(), [&](const StoredTensor& tensor) {
      return tensor.treatment == Treatment::keep && !unfolded(tensor) && tensor.line.shape.size() > 1 &&
             tensor.dtype != DType::boolean && (!is_float(tensor.dtype) || bits(tensor.dtype) == 8);
    });
  }
  /// Does a description of all weights still hold? Where scales were folded in it does not.
  [[nodiscard]] bool describes_quantized() const {
    return keeps_quantized() &&
           std::ranges::none_of(file_.tensors(), [&](const StoredTensor& tensor) { return unfolded(tensor); });
  }
  /// A text of "__metadata__" that describes quantized weights, without the entries {"layers": {NAME: ...}} of those
  /// whose scales are folded in.
  [[nodiscard]] std::string still_described(const std::string& text) const {
    nlohmann::json json;
    try {
      json = parse_json_text(text, file_.name());
    } catch (const Error&) {
      return text;  // no JSON: as it is
    }
    const auto layers = json.is_object() ? json.find("layers") : json.end();
    if (layers == json.end() || !layers->is_object()) return text;
    std::size_t erased = 0;
    for (const StoredTensor& tensor : file_.tensors())
      if (const std::string& name = tensor.line.name; unfolded(tensor))
        erased += layers->erase(name) + layers->erase(name.substr(0, name.rfind('.')));
    return erased > 0 ? json.dump() : text;
  }
  /// Tensors that told of FP8 weights which are folded now: they stay behind.
  [[nodiscard]] const std::set<std::string>& outlived() const noexcept { return outlived_; }
  [[nodiscard]] bool leaves_out(const StoredTensor& tensor) const {
    const std::string& name = tensor.line.name;
    return tensor.treatment == Treatment::fold || outlived_.contains(name) ||
           (restores_ && kept_.scales().contains(name));
  }
  [[nodiscard]] OutgoingTensor outgoing(const StoredTensor& tensor) const {
    return {tensor.line.name, unfolded(tensor) ? DType::bf16 : tensor.dtype, tensor.line.shape};
  }

  void fill(const OutgoingTensor& out, const Append& append, Progress& progress) {
    const StoredTensor& tensor = file_.tensors()[index_.at(out.name)];
    const auto done = [&](std::size_t count) { progress.at(done_ += static_cast<double>(count), all_); };
    if (tensor.treatment == Treatment::keep && unfolded(tensor))
      return kept_.floats(tensor, [&](std::span<const float> values) {
        append(narrowed(values, out.dtype));
        for (const float value : values) energy_ += double{value} * double{value};
        done(values.size());
      });
    each_stored_unit(file_, tensor, stored_, [&](const StoredUnit& unit, std::span<const std::byte> bytes) {
      append(tensor.treatment == Treatment::keep ? bytes : narrowed(unit, out.dtype));
      done(unit.count);
    });
  }

  [[nodiscard]] double rounding() const noexcept { return rounding_; }  ///< sum of squares
  [[nodiscard]] double energy() const noexcept { return energy_; }      ///< of the weights before quantization

 private:
  std::span<const std::byte> narrowed(const StoredUnit& unit, DType dtype) {
    const std::string place = file_.place(unit);
    if (const auto header = read_record_header(stored_, place); header.count != unit.count)
      fail(Errc::malformed, fmt::format("{}: the record holds {} weights", place, header.count));
    values_.resize(static_cast<std::size_t>(unit.count));
    decode_record_values(stored_, values_, place);
    energy_ += unit.energy;
    return narrowed(values_, dtype);
  }
  std::span<const std::byte> narrowed(std::span<const float> values, DType dtype) {
    narrow_.resize(values.size() * bits(dtype) / 8);
    narrow_to(dtype, values, narrow_);
    rounding_ += measure_error({dtype, narrow_, values.size()}, values, {}).squared_error;
    return narrow_;
  }
  /// Do marks in the file itself tell which weights are scaled 8-bit floats, so that some may stay such?
  [[nodiscard]] bool describes_itself() const {
    for (const auto& [name, at] : index_)
      if (name.ends_with("scaled_fp8") || name.ends_with(".comfy_quant")) return true;
    bool found = false;
    each_metadata(file_, [&](const std::string& key) { found = found || is_quantization_key(key); });
    return found;
  }

  const QuantizedFile& file_;
  const KeptFp8 kept_;
  bool restores_ = false;  // kept 8-bit floats become what they stand for
  std::set<std::string> scaled_, outlived_;
  std::map<std::string, std::size_t> index_;
  std::vector<std::byte> stored_, narrow_;
  std::vector<float> values_;
  double rounding_ = 0, energy_ = 0, done_ = 0, all_ = 0;
};

/// One safetensors file to make and its tensors.
struct Shard {
  std::string name;
  std::vector<OutgoingTensor> tensors;
  std::map<std::string, std::string> metadata;
};

bool is_plain_name(const std::string& name, const char* suffix) {
  return name.ends_with(suffix) && name.size() <= 255 && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}
/// A file, or one in folders below, whose names say where they are ("..", "." and hidden ones do not).
bool is_shard_name(const std::string& name) {
  if (name.size() > 4096) return false;
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find('/', begin), name.size());
    if (end == begin || name[begin] == '.' || end - begin > 255) return false;
    begin = end + 1;
  }
  return name.ends_with(".safetensors") && name.find('\0') == std::string::npos;
}

/// Texts of an object of the provenance: the source's "__metadata__", without what no longer holds of the weights.
std::map<std::string, std::string> texts_of(const nlohmann::json& object, const Exporter& exporter) {
  std::map<std::string, std::string> texts;
  if (object.is_object())
    for (const auto& [key, value] : object.items()) {
      if (!value.is_string() || (is_quantization_key(key) && !exporter.keeps_quantized())) continue;
      texts[key] = value.get<std::string>();
      if (is_quantization_key(key)) texts[key] = exporter.still_described(texts[key]);
    }
  texts[kExportMark] = std::string(kVersion);
  return texts;
}

/// The source's shards as the provenance has them; one file where it says nothing usable.
std::vector<Shard> shards_of(const QuantizedFile& file, const Exporter& exporter, bool one_file) {
  std::vector<Shard> shards;
  const nlohmann::json& provenance = file.provenance();
  const nlohmann::json listed =
      provenance.is_object() && !one_file ? provenance.value("shards", nlohmann::json()) : nlohmann::json();
  const bool known =
      listed.is_array() && (listed.size() == 1 || provenance.value("shard_of", nlohmann::json()).is_object());
  const nlohmann::json shared =
      provenance.is_object() ? provenance.value("metadata", nlohmann::json()) : nlohmann::json();
  if (known)
    for (const auto& shard : listed)
      if (shard.is_object() && shard.value("name", nlohmann::json()).is_string())
        shards.push_back({shard["name"], {}, texts_of(shard.value("metadata", shared), exporter)});
  std::set<std::string> names;
  for (const Shard& shard : shards) names.insert(shard.name);
  if (shards.empty() || names.size() < shards.size() || !std::ranges::all_of(shards, is_shard_name, &Shard::name))
    shards.assign(1, {"model.safetensors", {}, texts_of(shared, exporter)});
  for (const StoredTensor& tensor : file.tensors()) {
    if (exporter.leaves_out(tensor)) continue;
    std::size_t shard = 0;
    if (known && shards.size() > 1) {
      const auto at = provenance["shard_of"].find(tensor.line.name);
      if (at == provenance["shard_of"].end() || !at->is_number_unsigned() || at->get<std::size_t>() >= shards.size())
        fail(Errc::malformed, fmt::format("{}: provenance does not say which shard has tensor '{}'", file.name(),
                                          printable(tensor.line.name)));
      shard = at->get<std::size_t>();
    }
    shards[shard].tensors.push_back(exporter.outgoing(tensor));
  }
  return shards;
}

/// Keys of the source's metadata that an export leaves out, ascending.
std::set<std::string> keys_left_out(const QuantizedFile& file, const Exporter& exporter) {
  std::set<std::string> keys;
  if (exporter.keeps_quantized()) return keys;
  each_metadata(file, [&](const std::string& key) {
    if (is_quantization_key(key)) keys.insert(key);
  });
  return keys;
}

/// The name of the index that loaders look for; empty where the one file goes without.
std::string index_name_of(const QuantizedFile& file, const std::vector<Shard>& shards) {
  const nlohmann::json& provenance = file.provenance();
  if (provenance.is_object() && provenance.value("index", nlohmann::json()).is_string())
    if (const auto name = provenance["index"].get<std::string>();
        is_plain_name(name, ".json") && name.find(".index.") != name.npos)
      return name;
  constexpr std::string_view kWhole[] = {"model.safetensors", "diffusion_pytorch_model.safetensors",
                                         "adapter_model.safetensors"};
  const std::string first = shards[0].name.substr(shards[0].name.rfind('/') + 1);
  if (shards.size() == 1 && std::ranges::find(kWhole, shards[0].name) != std::end(kWhole)) return "";
  const auto of = first.rfind("-of-"), dash = of == first.npos || of == 0 ? first.npos : first.rfind('-', of - 1);
  const std::string stem = shards.size() > 1 && dash != first.npos ? first.substr(0, dash) : "model";
  return stem + ".safetensors.index.json";
}

/// Shards, model files and index in a folder.
Exported export_folder(const Options& options, const QuantizedFile& file, Exporter& exporter, Progress& progress) {
  const auto shards = shards_of(file, exporter, false);
  std::vector<std::string> names;
  for (const Shard& shard : shards) names.push_back(shard.name);
  const std::string index = index_name_of(file, shards);
  StagedFolder folder(options.output, names, index);
  std::map<std::string, std::string> shard_of;
  std::uint64_t total = 0;
  Exported made;
  for (const Shard& shard : shards) {
    write_safetensors(
        folder.path() / shard.name, shard.tensors, shard.metadata,
        [&](const OutgoingTensor& tensor, const Append& append) { exporter.fill(tensor, append, progress); });
    for (const OutgoingTensor& tensor : shard.tensors) shard_of[tensor.name] = shard.name, total += byte_count(tensor);
  }
  if (!index.empty())
    write_index(folder.path() / index, shard_of, total,
                options.source ? index_metadata(*options.source / index) : nlohmann::json::object());
  if (options.source) {
    const CopiedFiles copied = copy_model_files(*options.source, folder.path(), exporter.describes_quantized());
    made = {copied_text(*options.source, copied), copied_json(copied)};
  } else {
    made.text =
        "config and tokenizer files are not part of the file: --source FOLDER copies them from the model's folder\n";
  }
  folder.publish();
  made.text = fmt::format("{}, {} in {}: {}\n{}", counted(shard_of.size(), "tensor"), format_bytes(total),
                          counted(shards.size(), "file"), printable(options.output.string()), made.text);
  made.report.update({{"tensors", shard_of.size()}, {"bytes", total}, {"files", names}, {"index", index}});
  return made;
}

Exported export_one_file(const Options& options, const QuantizedFile& file, Exporter& exporter, Progress& progress) {
  if (options.source) fail(Errc::usage, "--source: model files are copied into a folder; -o names one file");
  check_replaceable(options.output);
  const auto shards = shards_of(file, exporter, true);
  write_safetensors(
      options.output, shards[0].tensors, shards[0].metadata,
      [&](const OutgoingTensor& tensor, const Append& append) { exporter.fill(tensor, append, progress); });
  std::uint64_t total = 0;
  for (const OutgoingTensor& tensor : shards[0].tensors) total += byte_count(tensor);
  return {fmt::format("{}, {}: {}\n", counted(shards[0].tensors.size(), "tensor"), format_bytes(total),
                      printable(options.output.string())),
          {{"tensors", shards[0].tensors.size()}, {"bytes", total}}};
}

}  // namespace

Exported export_safetensors(const Options& options, const std::string&) {
  const QuantizedFile file = open_output(options.input);
  if (!file.findings().empty()) fail(Errc::malformed, file.findings()[0]);
  Exporter exporter(file);
  Exported made;
  {
    Progress progress("export",
                      !options.quiet && error_is_terminal() ? Progress::Style::in_place : Progress::Style::none);
    made = options.output.extension() == ".safetensors" ? export_one_file(options, file, exporter, progress)
                                                        : export_folder(options, file, exporter, progress);
  }
  made.text += fmt::format("rounding to the original types adds a relative error of {}\n",
                           relative_error_text(exporter.rounding(), exporter.energy()));
  const auto unfolded =
      std::ranges::count_if(file.tensors(), [&](const StoredTensor& tensor) { return exporter.unfolded(tensor); });
  if (unfolded > 0)
    made.text += fmt::format("{} block-scaled FP8, BF16 now: the scales are folded in\n",
                             counted(static_cast<std::uint64_t>(unfolded), "tensor was", "tensors were"));
  made.text += outlived_text(exporter.outlived());
  if (const std::vector<std::string> left = exporter.undescribed(); !left.empty())
    warn(
        fmt::format("{}: {} stay{} quantized by another tool, such as '{}', and nothing describes that any more: the "
                    "export cannot be loaded as it is; quantize from the unquantized model",
                    printable(options.output.string()), counted(left.size(), "weight"), left.size() == 1 ? "s" : "",
                    printable(left[0])));
  const std::set<std::string> keys = keys_left_out(file, exporter);
  if (!keys.empty())
    made.text += fmt::format("without keys of __metadata__ that no longer hold: {}\n",
                             printable(fmt::format("{}", fmt::join(keys, ", ")), 1000));
  made.report.update({{"rounding_squared_error", exporter.rounding()},
                      {"energy", exporter.energy()},
                      {"unfolded_tensors", unfolded},
                      {"left_out_tensors", exporter.outlived()},
                      {"left_out_metadata", keys}});
  return made;
}

}  // namespace lmq::app
