#include <fmt/format.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "codebooks.hpp"
#include "commands.hpp"
#include "input.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io/placement.hpp"
#include "lmq/io_hdf5/hdf5_format.hpp"
#include "lmq/plan/names.hpp"
#include "open_output.hpp"
#include "table.hpp"
#include "tensor_lines.hpp"
#include "terminal.hpp"

namespace lmq::app {
namespace {

/// Tensors that share a line.
struct Listed {
  std::string name, type, shape, shard;
  std::uint64_t bytes = 0, tensors = 0;
};

std::vector<Listed> listed(const Catalogue& catalogue, bool summary) {
  std::vector<Listed> lines;
  std::map<std::string, std::size_t> index;
  for (std::size_t t = 0; t < catalogue.tensors.size(); ++t) {
    const TensorInfo& tensor = catalogue.tensors[t];
    Listed line{.name = summary ? name_pattern(tensor.name) : tensor.name,
                .type = stored_type(catalogue, t),
                .shape = shape_text(tensor.shape),
                .shard = catalogue.shards[tensor.shard].name};
    const auto [at, fresh] = index.try_emplace(fmt::format("{}\n{}", line.name, line.type), lines.size());
    if (fresh) lines.push_back(std::move(line));
    Listed& sum = lines[at->second];
    if (sum.shape != shape_text(tensor.shape)) sum.shape = "various";
    if (sum.shard != catalogue.shards[tensor.shard].name) sum.shard = "various";
    sum.bytes += tensor.bytes;
    if (++sum.tensors == 1) sum.name = tensor.name;
    if (sum.tensors == 2) sum.name = name_pattern(tensor.name);
  }
  return lines;
}

std::string checkpoint_table(const Catalogue& catalogue, bool summary) {
  constexpr std::size_t kMax = 400;
  using enum Table::Align;
  Table table({{"tensor", left}, {"type", left}, {"shape", left}, {"bytes", right}, {"shard", left}});
  const std::vector<Listed> lines = listed(catalogue, summary);
  for (std::size_t i = 0; i < std::min(lines.size(), kMax); ++i)
    table.row({counted_name(lines[i].name, lines[i].tensors), lines[i].type, lines[i].shape,
               with_commas(lines[i].bytes), printable(lines[i].shard)});
  std::map<std::string, std::uint64_t> bytes_of_type;
  std::uint64_t weights = 0, bytes = 0;
  for (std::size_t t = 0; t < catalogue.tensors.size(); ++t) {
    const TensorInfo& tensor = catalogue.tensors[t];
    bytes_of_type[stored_type(catalogue, t)] += tensor.bytes;
    weights += tensor.count();
    bytes += tensor.bytes;
  }
  std::string text = table.text(output_width());
  if (lines.size() > kMax)
    text += fmt::format("... and {} (--summary: kinds of tensors; --json: all)\n",
                        counted(lines.size() - kMax, "more line", "more lines"));
  std::string sums =
      fmt::format("{}: {}, {}, {} in {}:", catalogue.format, counted(catalogue.tensors.size(), "tensor"),
                  counted(weights, "element"), format_bytes(bytes), counted(catalogue.shards.size(), "file"));
  for (const auto& [type, size] : bytes_of_type) sums += fmt::format(" {} {}", type, format_bytes(size));
  return text + '\n' + wrap(sums, output_width(), 0);
}

nlohmann::json checkpoint_json(const Catalogue& catalogue) {
  nlohmann::json tensors = nlohmann::json::array(), shards = nlohmann::json::array();
  for (std::size_t t = 0; t < catalogue.tensors.size(); ++t) {
    const TensorInfo& tensor = catalogue.tensors[t];
    nlohmann::json item{
        {"name", tensor.name},   {"dtype", name(tensor.dtype)}, {"stored_as", stored_type(catalogue, t)},
        {"shape", tensor.shape}, {"bytes", tensor.bytes},       {"shard", tensor.shard}};
    if (tensor.scale >= 0) item["scale"] = catalogue.tensors[static_cast<std::size_t>(tensor.scale)].name;
    tensors.push_back(std::move(item));
  }
  for (const TensorNote& note : catalogue.notes) tensors[note.tensor]["note"] = note.text;
  for (const ShardInfo& shard : catalogue.shards)
    shards.push_back({{"name", shard.name}, {"bytes", shard.bytes}, {"header_digest", shard.header_digest}});
  return {{"format", catalogue.format},  {"index", catalogue.index_name},  {"tensors", std::move(tensors)},
          {"shards", std::move(shards)}, {"metadata", catalogue.metadata}, {"warnings", catalogue.warnings}};
}

nlohmann::json file_json(const QuantizedFile& file) {
  const auto lines = file.lines();
  nlohmann::json ledger = nlohmann::json::object();
  for (const auto& purpose : file.ledger()) ledger[purpose.name] = purpose.bytes;
  return {{"format", "lmq"},
          {"plan_digest", file.plan_digest()},
          {"tensors", to_json(lines)},
          {"totals", to_json(totals_of(lines, file.places().file_bytes))},
          {"units", file.units().size()},
          {"ledger", std::move(ledger)},
          {"recipe", file.recipe()},
          {"provenance", file.provenance()}};
}

std::string file_text(const QuantizedFile& file, bool summary) {
  const auto lines = file.lines();
  std::string text = fmt::format("{}\n{}", tensor_table(lines, output_width(), summary ? 0 : kMaxLines),
                                 totals_text(totals_of(lines, file.places().file_bytes)));
  text += "\nwhere the bytes are:\n";
  using enum Table::Align;
  Table table({{"purpose", left}, {"bytes", right}, {"share", right}});
  for (const auto& purpose : file.ledger())
    table.row({purpose.name, with_commas(purpose.bytes),
               fmt::format("{:.2f} %",
                           100 * static_cast<double>(purpose.bytes) / static_cast<double>(file.places().file_bytes))});
  text += table.text(output_width());
  const nlohmann::json& provenance = file.provenance();
  std::string sources = "made from";
  if (provenance.is_object() && provenance.value("shards", nlohmann::json()).is_array())
    for (const auto& shard : provenance["shards"])
      if (shard.is_object() && shard.value("name", nlohmann::json()).is_string())
        sources += fmt::format(" {}", printable(shard["name"].get<std::string>()));
  text += '\n' + wrap(sources, output_width(), 0);
  return text + fmt::format("plan {}\n", printable(file.plan_digest()));
}

}  // namespace

int inspect(const Options& options) {
  std::error_code ignored;
  if (std::filesystem::is_regular_file(options.input, ignored) && is_hdf5(options.input) &&
      !is_foreign_hdf5(options.input)) {
    const QuantizedFile file = open_output(options.input);
    for (const std::string& finding : file.findings()) warn(finding);
    if (options.codebook) {
      if (options.json && *options.json != "-")
        fail(Errc::usage, fmt::format("--json {}: codebooks go to standard output", printable(*options.json)));
      print_codebooks(file, *options.codebook, options.json.has_value(), print);
      return 0;
    }
    if (options.json) print_json(*options.json, file_json(file));
    if (options.json != "-" && !options.quiet) print(file_text(file, options.summary));
    return 0;
  }
  if (options.codebook)
    fail(Errc::usage, fmt::format("--codebook {}: {} was not written by lmq: it has no codebooks",
                                  printable(*options.codebook), printable(options.input.string())));
  const auto reader = open_input(options.input);
  check_names(reader->catalogue().tensors);
  for (const std::string& warning : reader->catalogue().warnings) warn(warning);
  if (options.json) print_json(*options.json, checkpoint_json(reader->catalogue()));
  if (options.json != "-" && !options.quiet) print(checkpoint_table(reader->catalogue(), options.summary));
  return 0;
}

}  // namespace lmq::app
