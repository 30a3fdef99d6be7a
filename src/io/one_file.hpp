#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "lmq/io/file.hpp"
#include "lmq/io/reader.hpp"

namespace lmq {

/// A catalogue without shards and tensors, of files in the folder of `path`.
[[nodiscard]] Catalogue folder_catalogue(const std::filesystem::path& path, std::string format);
/// Adds `file` as the next shard; returns its index.
std::uint32_t add_shard(Catalogue& catalogue, const File& file, std::string digest);
/// Digest of all the catalogue says of its tensors: for formats without a header in one piece.
[[nodiscard]] std::string table_digest(const Catalogue& catalogue);

/// The file, or all of the numbered set that it is one of: "x-00002-of-00003.gguf". Errc::missing names the part that is
/// not there.
[[nodiscard]] std::vector<std::filesystem::path> numbered_set(const std::filesystem::path& path);

}  // namespace lmq
