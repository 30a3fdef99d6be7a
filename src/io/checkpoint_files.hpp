#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "shard_index.hpp"

namespace lmq {

/// Which files make up a checkpoint.
struct CheckpointFiles {
  std::filesystem::path folder;     ///< absolute
  std::vector<std::string> shards;  ///< plain names in the folder, ascending
  std::optional<ShardIndex> index;  ///< when an index names them
  std::string index_name;           ///< for messages
};

/// Finds them from what the user named, by content:
/// - a safetensors file: itself; a JSON file: the index of its folder;
/// - a folder: model.safetensors.index.json, else the only index of safetensors; without one the only .safetensors
/// file,
///   else the complete set NAME-00001-of-0000N.safetensors.
/// No shard of a folder or an index may be a link that leaves the folder; the cache of Hugging Face, where
/// snapshots/<revision>/<file> links to blobs/<digest>, is let through.
/// Errc::missing (nothing there, a shard of an index or set is not there), Errc::malformed, Errc::unsupported (another
/// kind of file, named), Errc::usage (a folder that leaves a choice).
[[nodiscard]] CheckpointFiles find_checkpoint_files(const std::filesystem::path& input);

}  // namespace lmq
