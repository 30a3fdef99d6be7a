#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lmq {

/// What an index.json says: {"metadata": {"total_size": bytes, ...}, "weight_map": {tensor: shard file, ...}, ...}.
struct ShardIndex {
  std::map<std::string, std::string> shard_of;  ///< tensor -> is_inner_path
  /// Tensors that lie in several shards, as indexes of Keras have them -> the shards after the one in shard_of.
  std::map<std::string, std::vector<std::string>> further_shards_of;
  std::optional<double> total_size;  ///< informative; some writers give a float
};

/// True for a name that stays in its folder: clean UTF-8 of 1 to 255 bytes, no separator, not "." or "..".
[[nodiscard]] bool is_plain_file_name(std::string_view name) noexcept;
/// Such names with '/' between them: a file in a folder, or below it.
[[nodiscard]] bool is_inner_path(std::string_view path) noexcept;

/// Parses an index; a list of one shard is that shard. Duplicate keys, other types than above and shard names that are not plain are Errc::malformed, as
/// are an index without tensors and an empty list. Further entries of the root and of "metadata" are passed over.
[[nodiscard]] ShardIndex parse_shard_index(std::string_view text, const std::string& source);

}  // namespace lmq
