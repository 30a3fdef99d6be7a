#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "commands.hpp"
#include "export_formats.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/base/words.hpp"
#include "table.hpp"
#include "terminal.hpp"
#include "version.hpp"

namespace lmq::app {
namespace {

constexpr std::string_view kIntegers =
    "int2-channel int2-g128 int2-g64 int2-g32 int3-channel int3-g128 int3-g64 int3-g32 int4-channel int4-g128 int4-g64 "
    "int4-g32 int8-channel int8-g128 int8-g64 int8-g32";

constexpr std::array kFormats{
    ExportFormat{"safetensors", "", "the original types, in the shards they came from",
                 "a folder, or a file that ends in .safetensors", export_safetensors},
    ExportFormat{
        "gguf", "tq2_0 q4_0 iq4_nl q4_1 q8_0 f16 bf16 f32",
        "blocks that decode to the same values where there are such, else F16; with a type: the best blocks of it",
        "a file", export_gguf},
    ExportFormat{"compressed-tensors", kIntegers,
                 "linear layers as packed integers (vLLM, transformers) where they have the same values; with bits and "
                 "group: the best ones",
                 "a folder; --source or the input is the model's folder", export_compressed_tensors},
    ExportFormat{"gptq", kIntegers, "the same as GPTQ's tensors (GPTQModel, vLLM, transformers)",
                 "a folder; --source or the input is the model's folder", export_gptq},
    ExportFormat{"hdf5", "", "plain HDF5 in the original types, read without a plug-in", "a file", export_hdf5},
};

/// `word` among words divided by spaces.
bool is_among(std::string_view word, std::string_view words) {
  for (std::size_t begin = 0; begin < words.size();) {
    const std::size_t end = std::min(words.find(' ', begin), words.size());
    if (words.substr(begin, end - begin) == word) return true;
    begin = end + 1;
  }
  return false;
}

[[noreturn]] void refuse_variant(const ExportFormat& format, const std::string& word, const std::string& variant) {
  if (format.variants.empty())
    fail(Errc::usage, fmt::format("--to {}: {} has no variants", printable(word), format.name));
  std::vector<std::string_view> known;
  for (std::string_view rest = format.variants; !rest.empty();) {
    known.push_back(rest.substr(0, rest.find(' ')));
    rest.remove_prefix(std::min(known.back().size() + 1, rest.size()));
  }
  const std::string near = nearest(variant, known);
  fail(Errc::usage, fmt::format("--to {}: '{}' is none of {}{}", printable(word), printable(variant), format.variants,
                                near.empty() ? "" : fmt::format(" (did you mean {}:{}?)", format.name, near)));
}

/// The text with lines that fit the terminal.
std::string in_lines(std::string_view text) {
  std::string lines;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    lines += hanging(line, output_width());
    text.remove_prefix(std::min(line.size() + 1, text.size()));
  }
  return lines;
}

}  // namespace

std::span<const ExportFormat> export_formats() noexcept { return kFormats; }

const ExportFormat& find_export_format(const std::string& word, std::string& variant) {
  const auto colon = word.find(':');
  variant = colon == word.npos ? std::string{} : word.substr(colon + 1);
  std::string known;
  for (const ExportFormat& format : kFormats) {
    if (format.name == word.substr(0, colon)) {
      if (colon != word.npos && !is_among(variant, format.variants)) refuse_variant(format, word, variant);
      return format;
    }
    known += fmt::format("{}{}", known.empty() ? "" : ", ", format.name);
  }
  std::vector<std::string_view> names;
  for (const ExportFormat& format : kFormats) names.push_back(format.name);
  const std::string near = nearest(word.substr(0, colon), names);
  fail(Errc::usage, fmt::format("--to {}: expected one of {}{}", printable(word), known,
                                near.empty() ? "" : fmt::format(" (did you mean {}?)", near)));
}

int export_file(const Options& options) {
  std::string variant;
  const ExportFormat& format = find_export_format(options.format, variant);
  Exported made = format.write(options, variant);
  if (options.json) {
    made.report.update({{"lmq_version", kVersion},
                        {"input", options.input.string()},
                        {"output", options.output.string()},
                        {"format", options.format}});
    print_json(*options.json, std::move(made.report));
  }
  if (!options.quiet && options.json != "-") print_beside(in_lines(made.text), options.output.string());
  return 0;
}

}  // namespace lmq::app
