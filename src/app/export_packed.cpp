#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>

#include "export_files.hpp"
#include "export_formats.hpp"
#include "export_source.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io/layer_kinds.hpp"
#include "lmq/io/safetensors_writer.hpp"
#include "lmq/io/scaled_levels.hpp"
#include "packed_layouts.hpp"
#include "table.hpp"
#include "terminal.hpp"
#include "version.hpp"

namespace lmq::app {
namespace {

namespace fs = std::filesystem;
using Tensor = ExportSource::Tensor;
constexpr std::string_view kWeight = ".weight";
constexpr std::uint64_t kShardBytes = std::uint64_t{2} << 30;
constexpr std::uint64_t kGroups[] = {0, 128, 64, 32};  // groups that kernels have, longest first

/// A tensor and how it goes out.
struct Outgoing {
  const Tensor* tensor;
  std::optional<PackScheme> scheme;  ///< nothing: as plain values
  std::string why;                   ///< for a linear layer that stays plain
};

/// "int4-g128": bits and columns that share a scale; "int4-channel": all of a row.
PackScheme parse_scheme(const std::string& variant) {
  const std::string size = variant.substr(variant.find('-') + 1);
  return {variant[3] - '0', size == "channel" ? 0 : std::stoull(size.substr(1)), DType::f16};
}

std::string scheme_text(const PackScheme& scheme) {
  return scheme.group == 0 ? fmt::format("int{}-channel", scheme.bits)
                           : fmt::format("int{}-g{}", scheme.bits, scheme.group);
}

/// Scales and codes of one row. exact: the scale that makes its values, else the best one; returns the squared error.
double pack_row(const PackScheme& scheme, bool exact, std::span<const float> row, std::span<std::uint8_t> codes,
                std::span<float> scales) {
  const ScaledLevels& levels = signed_levels(scheme.bits);
  const std::size_t length = row.size() / scales.size();
  double error = 0;
  for (std::size_t g = 0; g < scales.size(); ++g) {
    const auto values = row.subspan(g * length, length);
    const auto to = codes.subspan(g * length, length);
    if (exact && exact_scale(levels, scheme.scale, values, to, scales[g])) continue;
    const FoundScale found = best_scale(levels, scheme.scale, values, to);
    scales[g] = found.scale, error += found.error;
  }
  return error;
}

/// True when every group of every row has a scale that makes its values.
bool holds_rows(const PackScheme& scheme, std::span<const float> rows, std::size_t columns) {
  const std::size_t length = scheme.group == 0 ? columns : static_cast<std::size_t>(scheme.group);
  std::vector<std::uint8_t> codes(length);
  float scale = 0;
  for (std::size_t i = 0; i < rows.size(); i += length)
    if (!exact_scale(signed_levels(scheme.bits), scheme.scale, rows.subspan(i, length), codes, scale)) return false;
  return true;
}

class PackedExport {
 public:
  PackedExport(const Options& options, const std::string& variant, const PackedLayout& layout)
      : options_(options), layout_(layout), source_(options.input) {
    if (!variant.empty()) wanted_ = parse_scheme(variant);
    std::error_code ignored;
    folder_ = options.source ? *options.source : fs::is_directory(options.input, ignored) ? options.input : fs::path{};
    if (!fs::is_regular_file(folder_ / "config.json", ignored))
      fail(Errc::usage,
           fmt::format("--to {}: {}; its config.json is to say how weights are packed", layout.name,
                       folder_.empty() ? "--source FOLDER must name the model's folder"
                                       : fmt::format("{} has no config.json", printable(folder_.string()))));
    if (options.output.extension() == ".safetensors")
      fail(Errc::usage, fmt::format("--to {}: -o names a folder, not one file", layout.name));
  }

  Exported run() {
    choose_all();
    const std::vector<std::vector<OutgoingTensor>> shards = make_shards();
    std::vector<std::string> names;
    for (std::size_t s = 0; s < shards.size(); ++s)
      names.push_back(shards.size() == 1 ? "model.safetensors"
                                         : fmt::format("model-{:05}-of-{:05}.safetensors", s + 1, shards.size()));
    const std::string index = shards.size() == 1 ? "" : "model.safetensors.index.json";
    StagedFolder folder(options_.output, names, index);
    std::map<std::string, std::string> shard_of;
    std::uint64_t total = 0;
    {
      Progress progress("export",
                        !options_.quiet && error_is_terminal() ? Progress::Style::in_place : Progress::Style::none);
      for (std::size_t s = 0; s < shards.size(); ++s) {
        write_safetensors(folder.path() / names[s], shards[s], {{"format", "pt"}, {kExportMark, std::string(kVersion)}},
                          [&](const OutgoingTensor& out, const auto& append) {
                            fill(out.name, append);
                            progress.at(done_, all_);
                          });
        for (const OutgoingTensor& out : shards[s]) shard_of[out.name] = names[s], total += byte_count(out);
      }
    }
    if (!index.empty()) write_index(folder.path() / index, shard_of, total, nlohmann::json::object());
    const CopiedFiles copied = copy_model_files(folder_, folder.path(), false);
    describe_weights(folder.path(), layout_.config(modules(), plain_modules()));
    folder.publish();
    nlohmann::json report = copied_json(copied);
    report.update(report_of(total, names));
    return {summary(total, names.size()) + copied_text(folder_, copied), std::move(report)};
  }

 private:
  /// The tensors as a catalogue, whose names, types and shapes tell the kinds of layers.
  [[nodiscard]] Catalogue catalogue() const {
    Catalogue catalogue;
    for (const Tensor& tensor : source_.tensors()) {
      TensorInfo info;
      info.name = tensor.name, info.dtype = tensor.dtype, info.shape = tensor.shape;
      catalogue.tensors.push_back(info);
    }
    std::ranges::sort(catalogue.tensors, {}, &TensorInfo::name);
    return catalogue;
  }

  void choose_all() {
    if (source_.renamed())
      fail(Errc::unsupported, fmt::format("{}: names of {} are not those of the model's layers: start from the model "
                                          "that it was made from",
                                          printable(options_.input.string()), source_.format()));
    const Catalogue tensors = catalogue();
    const std::vector<LayerKind> kinds = layer_kinds(tensors, folder_);
    std::map<std::string, const Tensor*> by_name;
    for (const Tensor& tensor : source_.tensors()) by_name[tensor.name] = &tensor;
    bool any = false, transposed = false;
    for (std::size_t t = 0; t < kinds.size(); ++t) {
      const Tensor& tensor = *by_name.at(tensors.tensors[t].name);
      check_plain(tensor);
      Outgoing out{&tensor, {}, {}};
      if (kinds[t] == LayerKind::linear) choose(out);
      any = any || out.scheme.has_value();
      transposed = transposed || kinds[t] == LayerKind::transposed;
      out_.push_back(std::move(out));
    }
    if (!any) refuse(transposed);
    for (std::size_t i = 0; i < out_.size(); ++i) all_ += static_cast<double>(out_[i].tensor->count());
  }

  /// Weights of another tool's packed format would be described wrongly.
  void check_plain(const Tensor& tensor) const {
    const bool packed = tensor.shape.size() > 1 && tensor.dtype != DType::boolean && tensor.dtype != DType::i64 &&
                        (!is_float(tensor.dtype) || bits(tensor.dtype) == 8);
    if (packed)
      fail(Errc::unsupported,
           fmt::format("tensor '{}': {}: weights are packed already: start from the unquantized model",
                       printable(tensor.name), name(tensor.dtype)));
  }

  [[noreturn]] void refuse(bool transposed) const {
    for (const Outgoing& out : out_)
      if (!out.why.empty())
        fail(Errc::unsupported, fmt::format("{}: no linear layer can be packed: '{}': {}{}",
                                            printable(options_.input.string()), printable(out.tensor->name), out.why,
                                            wanted_ ? ""
                                                    : "; --method gptq --levels 16 --group 32 makes such, and "
                                                      "--to NAME:int4-g32 rounds to the best ones"));
    fail(Errc::unsupported, fmt::format("{}: there are no linear layers{}", printable(options_.input.string()),
                                        transposed ? ": those of this model are [inputs, outputs] (Conv1D), which the "
                                                     "format does not know"
                                                   : " in numbered blocks"));
  }

  void choose(Outgoing& out) const {
    const Tensor& tensor = *out.tensor;
    const std::uint64_t rows = tensor.shape[0], columns = tensor.shape[1];
    if (wanted_) {
      PackScheme scheme = *wanted_;
      scheme.scale = usual_scale(tensor);
      out.why = layout_.obstacle(rows, columns, scheme);
      if (out.why.empty() && scheme.group != 0 && columns % scheme.group != 0)
        out.why = fmt::format("rows of {} are no whole groups of {}", columns, scheme.group);
      if (out.why.empty()) out.scheme = scheme;
      return;
    }
    std::vector<PackScheme> left;
    for (const int width : layout_.widths)
      for (const std::uint64_t group : kGroups)
        for (const DType scale : layout_.scales)
          if (const PackScheme scheme{width, group, scale}; (group == 0 || columns % group == 0) && columns > group)
            if (out.why = layout_.obstacle(rows, columns, scheme); out.why.empty()) left.push_back(scheme);
    if (left.empty()) return;
    source_.blocks(tensor, columns, [&](std::span<const float> values) {
      std::erase_if(left, [&](const PackScheme& scheme) { return !holds_rows(scheme, values, columns); });
    });
    if (left.empty())
      out.why = "its values are on no grid of integers times a scale for each row or group";
    else
      out.scheme = left.front();
  }

  /// BF16 models compute in BF16, which takes such scales as they are.
  [[nodiscard]] DType usual_scale(const Tensor& tensor) const {
    const bool can = std::ranges::find(layout_.scales, DType::bf16) != layout_.scales.end();
    return can && tensor.dtype == DType::bf16 ? DType::bf16 : DType::f16;
  }

  static std::string module_of(const Tensor& tensor) {
    return tensor.name.substr(0, tensor.name.size() - kWeight.size());
  }

  [[nodiscard]] std::map<PackScheme, std::vector<std::string>> modules() const {
    std::map<PackScheme, std::vector<std::string>> modules;
    for (const Outgoing& out : out_)
      if (out.scheme) modules[{out.scheme->bits, out.scheme->group, DType::f16}].push_back(module_of(*out.tensor));
    return modules;
  }

  [[nodiscard]] std::vector<std::string> plain_modules() const {
    std::vector<std::string> modules{"lm_head"};
    for (const Outgoing& out : out_)
      if (!out.scheme && out.tensor->shape.size() == 2 && out.tensor->name.ends_with(kWeight))
        modules.push_back(module_of(*out.tensor));
    std::ranges::sort(modules);
    modules.erase(std::ranges::unique(modules).begin(), modules.end());
    return modules;
  }

  /// Tensors in the order of their names, cut into files of at most kShardBytes; the parts of a matrix stay together.
  std::vector<std::vector<OutgoingTensor>> make_shards() {
    std::vector<std::vector<OutgoingTensor>> shards(1);
    std::uint64_t bytes = 0;
    for (std::size_t i = 0; i < out_.size(); ++i) {
      const Tensor& tensor = *out_[i].tensor;
      std::vector<OutgoingTensor> parts;
      if (out_[i].scheme) {
        const PackedMatrix matrix{*out_[i].scheme, tensor.shape[0], tensor.shape[1], {}, {}};
        for (PackedPart& part : layout_.parts(matrix))
          parts.push_back({fmt::format("{}.{}", module_of(tensor), part.suffix), part.dtype, std::move(part.shape)});
      } else {
        parts.push_back({tensor.name, tensor.dtype, tensor.shape});
      }
      std::uint64_t more = 0;
      for (const OutgoingTensor& part : parts) more += byte_count(part), index_[part.name] = i;
      if (bytes > 0 && bytes + more > kShardBytes) shards.emplace_back(), bytes = 0;
      bytes += more;
      std::ranges::move(parts, std::back_inserter(shards.back()));
    }
    return shards;
  }

  /// The bytes of one tensor. The parts of a matrix come at different times: it is packed when the first one is asked for
  /// and its other parts are kept until they are.
  void fill(const std::string& name, const std::function<void(std::span<const std::byte>)>& append) {
    const Outgoing& out = out_[index_.at(name)];
    if (!out.scheme) {
      source_.bytes(*out.tensor, append, rounding_);
      done_ += static_cast<double>(out.tensor->count());
      return;
    }
    if (const auto kept = kept_.find(name); kept != kept_.end()) {
      append(kept->second);
      kept_.erase(kept);
      return;
    }
    const PackedMatrix matrix = pack(out);
    for (const PackedPart& part : layout_.parts(matrix)) {
      const std::string full = fmt::format("{}.{}", module_of(*out.tensor), part.suffix);
      if (full == name)
        append(layout_.bytes(matrix, part.suffix));
      else
        kept_[full] = layout_.bytes(matrix, part.suffix);
    }
    done_ += static_cast<double>(out.tensor->count());
  }

  PackedMatrix pack(const Outgoing& out) {
    PackedMatrix matrix{*out.scheme, out.tensor->shape[0], out.tensor->shape[1], {}, {}};
    const auto columns = static_cast<std::size_t>(matrix.columns), groups = static_cast<std::size_t>(matrix.groups());
    matrix.codes.resize(static_cast<std::size_t>(matrix.rows) * columns);
    matrix.scales.resize(static_cast<std::size_t>(matrix.rows) * groups);
    std::size_t row = 0;
    Part& part = parts_[scheme_text(matrix.scheme)];
    source_.blocks(*out.tensor, columns, [&](std::span<const float> values) {
      const std::size_t rows = values.size() / columns;
      std::vector<double> errors(rows);
      parallel_for(rows, [&](std::size_t r) {
        errors[r] = pack_row(matrix.scheme, !wanted_, values.subspan(r * columns, columns),
                             std::span(matrix.codes).subspan((row + r) * columns, columns),
                             std::span(matrix.scales).subspan((row + r) * groups, groups));
      });
      for (const double error : errors) part.error += error;
      for (const float value : values) energy_ += double{value} * double{value};
      row += rows;
    });
    ++part.tensors;
    return matrix;
  }

  [[nodiscard]] std::string summary(std::uint64_t total, std::size_t files) const {
    std::string text = fmt::format("{}, {} in {}: {}\n", counted(index_.size(), "tensor"), format_bytes(total),
                                   counted(files, "file"), printable(options_.output.string()));
    double error = 0;
    for (const auto& [scheme, part] : parts_) {
      error += part.error;
      text += fmt::format(
          "{} in {}: {}\n", part.tensors, scheme,
          part.error == 0 ? std::string("the same values") : fmt::format("squared error {:.6g}", part.error));
    }
    text += fmt::format("beside what was in the file before, a relative error of {}\n",
                        relative_error_text(error, energy_));
    for (const Outgoing& out : out_)
      if (!out.why.empty()) text += fmt::format("plain: '{}': {}\n", printable(out.tensor->name), out.why);
    text += outlived_text(source_.outlived());
    return text;
  }

  [[nodiscard]] nlohmann::json report_of(std::uint64_t total, const std::vector<std::string>& files) const {
    nlohmann::json schemes = nlohmann::json::array(), plain = nlohmann::json::array();
    for (const auto& [scheme, part] : parts_)
      schemes.push_back({{"scheme", scheme}, {"tensors", part.tensors}, {"squared_error", part.error}});
    for (const Outgoing& out : out_)
      if (!out.why.empty()) plain.push_back({{"tensor", out.tensor->name}, {"reason", out.why}});
    return {{"tensors", index_.size()},
            {"bytes", total},
            {"files", files},
            {"schemes", std::move(schemes)},
            {"energy", energy_},
            {"plain", std::move(plain)},
            {"left_out_tensors", source_.outlived()}};
  }

  struct Part {
    std::size_t tensors = 0;
    double error = 0;
  };
  const Options& options_;
  const PackedLayout& layout_;
  ExportSource source_;
  fs::path folder_;
  std::optional<PackScheme> wanted_;
  std::vector<Outgoing> out_;
  std::map<std::string, std::size_t> index_;  ///< outgoing tensor -> in out_
  std::map<std::string, std::vector<std::byte>> kept_;
  std::map<std::string, Part> parts_;
  double rounding_ = 0, energy_ = 0, done_ = 0, all_ = 0;
};

}  // namespace

Exported export_compressed_tensors(const Options& options, const std::string& variant) {
  return PackedExport(options, variant, compressed_tensors_layout()).run();
}

Exported export_gptq(const Options& options, const std::string& variant) {
  return PackedExport(options, variant, gptq_layout()).run();
}

}  // namespace lmq::app
