#pragma once
#include <map>
#include <string>

#include "lmq/base/path_limits.hpp"
#include "lmq/io/layout.hpp"

namespace lmq::h5 {

/// Chunks have less than 4 GiB in HDF5.
inline constexpr std::uint64_t kMaxChunkBytes = 0xFFFFFFFF;

/// All groups of a layout, explicit and implied, parents before children; nullptr where nothing is said about one.
using GroupTable = std::map<std::string, const GroupLayout*>;

/// Refuses what HDF5 cannot hold (Errc::unsupported) or what contradicts itself (Errc::internal); `file` is for
/// messages.
[[nodiscard]] GroupTable check_layout(const std::string& file, const FileLayout& layout);

/// Everything before the last slash ("" for the root), and what is behind it.
[[nodiscard]] inline std::string parent_of(const std::string& path) { return path.substr(0, path.rfind('/')); }
[[nodiscard]] inline std::string leaf_of(const std::string& path) { return path.substr(path.rfind('/') + 1); }

}  // namespace lmq::h5
