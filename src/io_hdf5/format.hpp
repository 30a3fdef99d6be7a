#pragma once
#include <filesystem>

#include "lmq/io/layout.hpp"

namespace lmq::h5 {

/// LayoutFormat::create and LayoutFormat::open.
[[nodiscard]] FilePlaces create_file(const std::filesystem::path& path, const FileLayout& layout);
[[nodiscard]] LayoutFormat::Existing open_file(const std::filesystem::path& path);

}  // namespace lmq::h5
