#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string_view>

#include "export_files.hpp"
#include "export_formats.hpp"
#include "export_source.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io/gguf_encode.hpp"
#include "lmq/io/gguf_writer.hpp"
#include "table.hpp"
#include "terminal.hpp"
#include "version.hpp"

namespace lmq::app {
namespace {

using Tensor = ExportSource::Tensor;

/// A type whose values are stored as they are.
struct PlainType {
  DType dtype;
  std::uint32_t number;  ///< GGUF's
  std::string_view name;
};
const PlainType* plain_type(DType type) {
  static constexpr PlainType kPlain[] = {{DType::f32, 0, "f32"},  {DType::f16, 1, "f16"},   {DType::i8, 24, "i8"},
                                         {DType::i16, 25, "i16"}, {DType::i32, 26, "i32"},  {DType::i64, 27, "i64"},
                                         {DType::f64, 28, "f64"}, {DType::bf16, 30, "bf16"}};
  const auto at = std::ranges::find(kPlain, type, &PlainType::dtype);
  return at == std::end(kPlain) ? nullptr : &*at;
}

/// How one tensor is written: in `type`, or (nullptr) as its plain values.
struct Chosen {
  const Tensor* tensor;
  const GgufType* type = nullptr;
  std::string_view type_name = {};
  std::uint32_t number = 0;
  std::uint64_t bytes = 0;
};

constexpr std::size_t kRun = 4096;  // values that one step of a thread encodes

/// The smallest type of blocks that hold all values of a matrix exactly, or nullptr. One pass over the values; blocks
/// are tried as long as all before fitted.
const GgufType* exact_type(const ExportSource& source, const Tensor& tensor) {
  std::vector<const GgufType*> left;
  std::size_t longest = 1;
  for (const GgufType& type : gguf_types())
    if (type.elements > 1 && tensor.shape.back() % type.elements == 0 &&
        type.bytes * 8 < type.elements * bits(tensor.dtype))
      left.push_back(&type), longest = std::max<std::size_t>(longest, type.elements);
  std::vector<std::byte> block(256 * sizeof(float));
  source.blocks(tensor, longest, [&](std::span<const float> values) {
    std::erase_if(left, [&](const GgufType* type) {
      for (std::size_t i = 0; i < values.size(); i += type->elements)
        if (!encode_block_exactly(*type, values.subspan(i, type->elements), std::span(block).first(type->bytes)))
          return true;
      return false;
    });
  });
  return left.empty() ? nullptr : left.front();
}

/// Encodes a run on all threads; returns its squared error.
double encode_run(const GgufType& type, std::span<const float> values, bool exact, std::vector<std::byte>& out) {
  const std::size_t blocks = values.size() / type.elements, step = std::max<std::size_t>(kRun / type.elements, 1);
  out.resize(blocks * type.bytes);
  std::vector<double> errors((blocks + step - 1) / step);
  parallel_for(errors.size(), [&](std::size_t part) {
    for (std::size_t b = part * step; b < std::min(blocks, (part + 1) * step); ++b) {
      const auto from = values.subspan(b * type.elements, type.elements);
      const auto to = std::span(out).subspan(b * type.bytes, type.bytes);
      if (!exact || !encode_block_exactly(type, from, to)) errors[part] += encode_block(type, from, to);
    }
  });
  double sum = 0;
  for (const double error : errors) sum += error;
  return sum;
}

class GgufExport {
 public:
  GgufExport(const Options& options, const std::string& variant) : options_(options), source_(options.input) {
    if (!variant.empty()) wanted_ = find_gguf_type(variant);
  }

  Exported run() {
    if (options_.source && std::filesystem::is_directory(*options_.source))
      fail(Errc::usage, fmt::format("--source {}: for GGUF, a .gguf file whose keys are copied",
                                    printable(options_.source->string())));
    std::vector<const Tensor*> order = ordered();
    for (const Tensor* tensor : order) tensors_.push_back(choose(*tensor));
    GgufKeys keys;
    make_keys(keys);
    std::vector<OutgoingGguf> out;
    for (const Chosen& chosen : tensors_)
      out.push_back({chosen.tensor->name, chosen.tensor->shape, chosen.number, chosen.bytes}), all_ += chosen.bytes;
    check_replaceable_gguf();
    {
      Progress progress("export",
                        !options_.quiet && error_is_terminal() ? Progress::Style::in_place : Progress::Style::none);
      double done = 0;
      write_gguf(options_.output, keys, out, [&](std::size_t t, const auto& append) {
        fill(tensors_[t], [&](std::span<const std::byte> bytes) {
          append(bytes);
          progress.at(done += static_cast<double>(bytes.size()), static_cast<double>(all_));
        });
      });
    }
    return {summary(), report()};
  }

 private:
  /// Where keys come from: --source, or an input that is a GGUF file itself.
  [[nodiscard]] std::optional<std::filesystem::path> keys_from() const {
    if (options_.source) return options_.source;
    std::error_code ignored;
    if (source_.renamed() && options_.input.extension() == ".gguf" &&
        std::filesystem::is_regular_file(options_.input, ignored))
      return options_.input;
    return std::nullopt;
  }

  /// Tensors in the order of the file that keys come from, which must have all of them.
  std::vector<const Tensor*> ordered() const {
    std::map<std::string, const Tensor*> by_name;
    for (const Tensor& tensor : source_.tensors()) by_name[tensor.name] = &tensor;
    std::vector<const Tensor*> order;
    if (options_.source)
      for (const std::string& name : gguf_tensor_names(*options_.source)) {
        const auto found = by_name.find(name);
        if (found == by_name.end()) continue;
        order.push_back(found->second);
        by_name.erase(found);
      }
    if (options_.source && order.empty() && !by_name.empty())
      fail(
          Errc::usage,
          fmt::format("--source {}: none of its tensors has a name of {}, such as '{}': quantize that GGUF file itself",
                      printable(options_.source->string()), printable(options_.input.string()),
                      printable(by_name.begin()->first)));
    for (const auto& [name, tensor] : by_name) order.push_back(tensor);
    return order;
  }

  Chosen choose(const Tensor& tensor) {
    Chosen chosen{&tensor, nullptr, {}, 0, (tensor.count() * bits(tensor.dtype) + 7) / 8};
    const bool matrix = tensor.shape.size() >= 2 && is_float(tensor.dtype) && tensor.count() > 0;
    const std::uint64_t row = tensor.shape.empty() ? 1 : tensor.shape.back();
    if (matrix && wanted_ != nullptr && row % wanted_->elements == 0) {
      take(chosen, *wanted_);
    } else if (matrix && wanted_ != nullptr) {
      fallbacks_.push_back(
          fmt::format("'{}': rows of {} are no whole blocks of {}", tensor.name, row, wanted_->elements));
      take(chosen, *find_gguf_type("f16"));
    } else if (const GgufType* const exact = matrix ? exact_type(source_, tensor) : nullptr) {
      take(chosen, *exact);
    } else if (matrix && tensor.quantized) {
      take(chosen, *find_gguf_type("f16"));
    } else if (const PlainType* const plain = plain_type(tensor.dtype)) {
      chosen.number = plain->number;
      chosen.type_name = plain->name;
    } else if (is_float(tensor.dtype)) {
      take(chosen, *find_gguf_type("f32"));
    } else {
      fail(Errc::unsupported,
           fmt::format("tensor '{}': GGUF has no type for {}", printable(tensor.name), name(tensor.dtype)));
    }
    return chosen;
  }

  static void take(Chosen& chosen, const GgufType& type) {
    chosen.type = &type;
    chosen.type_name = type.name;
    chosen.number = type.id;
    chosen.bytes = chosen.tensor->count() / type.elements * type.bytes;
  }

  void make_keys(GgufKeys& keys) {
    std::map<const GgufType*, std::uint64_t> weights;
    for (const Chosen& chosen : tensors_)
      if (chosen.type != nullptr) weights[chosen.type] += chosen.tensor->count();
    if (const auto from = keys_from()) {
      keys.copy(*from);
    } else {
      keys.add("general.architecture", "unknown");
      bare_ = true;
    }
    const auto most = std::ranges::max_element(weights, {}, [](const auto& entry) { return entry.second; });
    keys.add("general.quantization_version", 2);
    if (most != weights.end()) keys.add("general.file_type", most->first->file_type);
    keys.add(kExportMark, kVersion);
  }

  void check_replaceable_gguf() const {
    std::error_code ignored;
    if (!std::filesystem::exists(std::filesystem::symlink_status(options_.output, ignored))) return;
    bool ours = false;
    try {
      ours = open_reader(options_.output)->catalogue().metadata.contains(kExportMark);
    } catch (const Error&) {
      ours = false;
    }
    if (!ours || std::filesystem::equivalent(options_.output, options_.input, ignored))
      fail(Errc::cannot_create,
           fmt::format("{}: is there already and is no export of lmq", printable(options_.output.string())));
  }

  void fill(const Chosen& chosen, const std::function<void(std::span<const std::byte>)>& append) {
    Part& part = parts_[chosen.type_name];
    ++part.tensors;
    part.bytes += chosen.bytes;
    if (chosen.type == nullptr) return source_.bytes(*chosen.tensor, append, part.error);
    std::vector<std::byte> out;
    source_.blocks(*chosen.tensor, chosen.type->elements, [&](std::span<const float> values) {
      for (const float value : values) energy_ += double{value} * double{value};
      part.error += encode_run(*chosen.type, values, wanted_ == nullptr, out);
      append(out);
    });
  }

  [[nodiscard]] std::string summary() const {
    std::string text = fmt::format("{}, {}: {}\n", counted(tensors_.size(), "tensor"), format_bytes(all_),
                                   printable(options_.output.string()));
    double error = 0;
    for (const auto& [type, part] : parts_) {
      error += part.error;
      text += fmt::format(
          "{} in {} ({}): {}\n", part.tensors, type, format_bytes(part.bytes),
          part.error == 0 ? std::string("the same values") : fmt::format("squared error {:.6g}", part.error));
    }
    text += fmt::format("beside what was in the file before, a relative error of {}\n",
                        relative_error_text(error, energy_));
    for (const std::string& line : fallbacks_) text += fmt::format("in F16: {}\n", printable(line));
    text += outlived_text(source_.outlived());
    if (bare_) text += "keys and tokenizer are not part of the file: --source MODEL.gguf copies them\n";
    return text;
  }

  [[nodiscard]] nlohmann::json report() const {
    nlohmann::json types = nlohmann::json::array();
    for (const auto& [type, part] : parts_)
      types.push_back(
          {{"type", type}, {"tensors", part.tensors}, {"bytes", part.bytes}, {"squared_error", part.error}});
    return {{"tensors", tensors_.size()},
            {"bytes", all_},
            {"types", std::move(types)},
            {"energy", energy_},
            {"fallbacks", fallbacks_},
            {"has_keys", !bare_},
            {"left_out_tensors", source_.outlived()}};
  }

  struct Part {
    std::size_t tensors = 0;
    std::uint64_t bytes = 0;
    double error = 0;
  };
  const Options& options_;
  ExportSource source_;
  const GgufType* wanted_ = nullptr;
  std::vector<Chosen> tensors_;
  std::map<std::string_view, Part> parts_;  ///< by the name of GGUF's type; of all tensors
  std::vector<std::string> fallbacks_;
  std::uint64_t all_ = 0;
  double energy_ = 0;
  bool bare_ = false;
};

}  // namespace

Exported export_gguf(const Options& options, const std::string& variant) { return GgufExport(options, variant).run(); }

}  // namespace lmq::app
