#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "shard_index.hpp"

namespace lmq {

/// Which files make up a checkpoint.
struct CheckpointFiles {
  std::filesystem::path folder;            ///< absolute
  std::vector<std::string> shards;         ///< plain names in the folder, ascending
  std::optional<ShardIndex> index;         ///< when an index names them
  std::string index_name;                  ///< its file name; empty: none
  std::vector<std::string> warnings = {};  ///< one line each: what lies there and is not used
};

/// Finds them from what the user named, by content:
/// - a safetensors file: itself; a JSON file: the index of its folder;
/// - a folder: model.safetensors.index.json, else the only index of safetensors; without one, and where an index is
///   left over from shards that are gone, the only .safetensors file, else the complete set
///   NAME-00001-of-0000N.safetensors (also NAME_1_of_N, NAME.00.ofN).
/// What else lies in the folder and is not used is a warning, as is one shard of a set named alone (a set by the word
/// of an index beside it, or by its name). Links are followed,
/// wherever they lead; names in an index are plain, so that none leaves the folder by itself.
/// Errc::missing (nothing there, a shard of an index or set is not there), Errc::malformed, Errc::unsupported (another
/// kind of file, named), Errc::usage (a folder that leaves a choice, also between NAME.safetensors and the
/// shards of its index).
[[nodiscard]] CheckpointFiles find_checkpoint_files(const std::filesystem::path& input);

/// An index as a file. Errc::malformed, Errc::io.
[[nodiscard]] ShardIndex read_shard_index(const std::filesystem::path& path);
/// The files that it names.
[[nodiscard]] std::set<std::string> shards_of(const ShardIndex& index);
/// How many shards a set has by the name of one, whatever its kind ("x_1_of_2.bin"); 0 where the name says nothing.
[[nodiscard]] std::uint64_t shards_by_name(const std::filesystem::path& file);

}  // namespace lmq
