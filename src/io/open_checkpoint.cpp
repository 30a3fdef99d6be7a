#include "open_checkpoint.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "block_scales.hpp"
#include "checkpoint_files.hpp"
#include "companions.hpp"
#include "file_kind.hpp"
#include "inputs.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/math.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io/file.hpp"
#include "model_config.hpp"
#include "model_parts.hpp"
#include "safetensors_header.hpp"

namespace lmq {
namespace {

struct Shard {
  ShardInfo info;
  SafetensorsHeader header;
};

Shard read_shard(const std::filesystem::path& folder, const std::string& name) {
  const File file(folder / name, File::Mode::read);
  const FileFormat format = recognize(file);
  if (format.is_foreign() && format.kind != FileKind::unknown)
    fail(Errc::unsupported, fmt::format("{}: found {}, expected safetensors: {}", printable(file.path().native()),
                                        format.words, format.advice));
  const File::Stamp stamp = file.stamp();
  Shard shard{.info = {.name = name,
                       .bytes = stamp.bytes,
                       .modified_ns = stamp.modified_ns,
                       .header_digest = {},
                       .metadata = {}},
              .header = read_safetensors_header(file, stamp.bytes)};
  shard.info.header_digest = shard.header.digest;
  return shard;
}

/// The shard that the index names for a tensor; empty: it does not.
std::string shard_said(const CheckpointFiles& files, const std::string& tensor) {
  if (!files.index) return {};
  const auto at = files.index->shard_of.find(tensor);
  return at == files.index->shard_of.end() ? std::string{} : at->second;
}

/// A name in two shards is that of the shard which the index says; without its word it is refused.
void drop_doubles(Catalogue& catalogue, const CheckpointFiles& files) {
  std::vector<TensorInfo> kept;
  std::size_t dropped = 0;
  std::string example;
  for (auto run = catalogue.tensors.begin(); run != catalogue.tensors.end();) {
    const auto end =
        std::find_if(run, catalogue.tensors.end(), [&](const TensorInfo& t) { return t.name != run->name; });
    auto chosen = run;
    if (end - run > 1) {
      const std::string said = shard_said(files, run->name);
      chosen = std::find_if(run, end, [&](const TensorInfo& t) { return catalogue.shards[t.shard].name == said; });
      if (chosen == end)
        fail(Errc::malformed,
             fmt::format("{}: tensor '{}': found in two shards, {} and {}", printable(catalogue.folder.native()),
                         printable(run->name), printable(catalogue.shards[run->shard].name),
                         printable(catalogue.shards[std::next(run)->shard].name)));
      if (dropped == 0) example = fmt::format("'{}' of {}", printable(run->name), printable(said));
      dropped += static_cast<std::size_t>(end - run) - 1;
    }
    kept.push_back(std::move(*chosen));
    run = end;
  }
  catalogue.tensors = std::move(kept);
  if (dropped > 0)
    catalogue.warnings.push_back(fmt::format("{}: {} tensor{} in more than one shard: taken as {} says, such as {}",
                                             printable(catalogue.folder.native()), dropped,
                                             dropped == 1 ? " is" : "s are", printable(files.index_name), example));
}

/// All tensors by name.
void merge(Catalogue& catalogue, std::vector<Shard>& shards, const CheckpointFiles& files) {
  for (std::size_t i = 0; i < shards.size(); ++i) {
    for (TensorInfo& tensor : shards[i].header.tensors) {
      tensor.shard = narrow<std::uint32_t>(i, "number of shards");
      catalogue.tensors.push_back(std::move(tensor));
    }
    shards[i].header.tensors = {};
    shards[i].info.metadata = std::move(shards[i].header.metadata);
    catalogue.shards.push_back(std::move(shards[i].info));
  }
  std::ranges::sort(catalogue.tensors, [](const TensorInfo& a, const TensorInfo& b) {
    return std::tie(a.name, a.shard) < std::tie(b.name, b.shard);
  });
  drop_doubles(catalogue, files);
  (void)narrow<std::uint32_t>(catalogue.tensors.size(), "number of tensors");
}

/// Every mapped tensor is in its shard; what is not mapped, and a wrong total_size, get a warning.
void check_against_index(Catalogue& catalogue, const CheckpointFiles& files) {
  const std::string source = printable((files.folder / files.index_name).native());
  if (!files.index->further_shards_of.empty()) {
    const auto& [tensor, further] = *files.index->further_shards_of.begin();
    fail(Errc::malformed, fmt::format("{}: weight_map: tensor '{}': found {} shards, expected one", source,
                                      printable(tensor), further.size() + 1));
  }
  for (const auto& [tensor, shard] : files.index->shard_of) {
    const std::int64_t at = catalogue.find(tensor);
    if (at < 0)
      fail(Errc::malformed, fmt::format("{}: weight_map: tensor '{}' is not in its shard {}", source, printable(tensor),
                                        printable(shard)));
    const std::string& found = catalogue.shards[catalogue.tensors[static_cast<std::size_t>(at)].shard].name;
    if (found != shard)
      fail(Errc::malformed, fmt::format("{}: weight_map: tensor '{}' is in shard {}, expected {}", source,
                                        printable(tensor), printable(found), printable(shard)));
  }
  std::vector<std::string> extras;
  double bytes = 0;
  for (const TensorInfo& tensor : catalogue.tensors) {
    bytes += static_cast<double>(tensor.bytes);
    if (!files.index->shard_of.contains(tensor.name)) extras.push_back(printable(tensor.name));
  }
  if (!extras.empty()) {
    const std::size_t named = std::min<std::size_t>(extras.size(), 3);
    catalogue.warnings.push_back(
        fmt::format("{}: {} tensors of the shards are not in the weight_map and are taken all the same: {}{}", source,
                    extras.size(), fmt::join(extras.begin(), extras.begin() + static_cast<std::ptrdiff_t>(named), ", "),
                    extras.size() > named ? ", ..." : ""));
  }
  if (files.index->total_size && *files.index->total_size != bytes)
    catalogue.warnings.push_back(fmt::format("{}: metadata: total_size is {:.0f}, the tensors have {:.0f} bytes",
                                             source, *files.index->total_size, bytes));
}

/// The catalogue of a checkpoint in safetensors.
Catalogue read_safetensors(const CheckpointFiles& files) {
  std::vector<Shard> shards(files.shards.size());
  parallel_for(shards.size(), [&](std::size_t i) { shards[i] = read_shard(files.folder, files.shards[i]); });
  Catalogue catalogue;
  catalogue.format = "safetensors";
  catalogue.folder = files.folder;
  catalogue.warnings = files.warnings;
  catalogue.index_name = files.index_name;
  merge(catalogue, shards, files);
  catalogue.metadata = catalogue.shards.front().metadata;
  if (files.index) check_against_index(catalogue, files);
  return catalogue;
}

/// The shards of an index, in the format of the first: the format finds the others by their numbers, or not at all.
Catalogue read_shards(const CheckpointFiles& files, const ChosenFormat& chosen) {
  Catalogue catalogue = chosen.format->read(chosen.file);
  if (catalogue.shards.size() < files.shards.size())
    fail(Errc::unsupported,
         fmt::format("{}: names {} shards, of which {} would be read: they are not put together; save the model as one "
                     "file or as safetensors",
                     printable((files.folder / files.index_name).native()), files.shards.size(),
                     catalogue.shards.size()));
  return catalogue;
}

Catalogue read_any(const std::filesystem::path& input, std::span<const InputFormat> more) {
  std::error_code error;
  if (std::filesystem::is_directory(input, error)) refuse_unjoined_parts(input);
  if (const ChosenFormat chosen = choose_format(input, more); chosen.format != nullptr)
    return chosen.format->read(chosen.file);
  const CheckpointFiles files = find_checkpoint_files(input);
  // An index may name shards of another format: pytorch_model.bin.index.json.
  if (files.index)
    if (const ChosenFormat chosen = choose_format(files.folder / files.shards[0], more); chosen.format != nullptr)
      return read_shards(files, chosen);
  return read_safetensors(files);
}

}  // namespace

Catalogue read_catalogue(const std::filesystem::path& input, std::span<const InputFormat> more) {
  Catalogue catalogue = read_any(input, more);
  if (catalogue.shards.size() == 1)
    if (std::string part = part_warning(catalogue.folder / catalogue.shards[0].name); !part.empty())
      catalogue.warnings.push_back(std::move(part));
  const ModelConfig config = read_model_config(catalogue.folder);
  catalogue.warnings.insert(catalogue.warnings.end(), config.warnings.begin(), config.warnings.end());
  const std::vector<std::int64_t> owners = find_companions(catalogue, config.quantized);
  pair_block_scales(catalogue, owners, config);
  mark_companions(catalogue, owners, config);
  return catalogue;
}

}  // namespace lmq
