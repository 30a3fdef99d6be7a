#pragma once
#include <filesystem>

#include "lmq/io/layout.hpp"

namespace lmq::h5 {

/// LayoutFormat::create and LayoutFormat::open.
[[nodiscard]] FilePlaces create_file(const std::filesystem::path& path, const FileLayout& layout);
[[nodiscard]] LayoutFormat::Existing open_file(const std::filesystem::path& path);
[[nodiscard]] LayoutFormat::Existing open_file_guarded(const std::filesystem::path& path);
[[nodiscard]] std::uint64_t metadata_bytes(const FileLayout& layout);
/// Metadata are given out in blocks of this size, so that opening a file reads few places of it; a block's rest is
/// lost. Up to a megabyte, some thousand tensors, one block holds them all. A function of the layout, as the bytes are.
[[nodiscard]] std::uint64_t metadata_block(const FileLayout& layout);

/// Of an object's header for these attributes.
[[nodiscard]] std::uint64_t attribute_bytes(const std::vector<Attribute>& attributes, std::size_t address_bytes);

/// Bytes of an address and of a length in the file: 4 where the whole file stays below 2 GiB, else 8.
[[nodiscard]] std::size_t address_bytes(const FileLayout& layout);
/// Members of a group up to which its links lie in its header, in order of their making; above it they lie in a heap
/// with an index.
inline constexpr std::size_t kMaxPlainLinks = 4096;

}  // namespace lmq::h5
