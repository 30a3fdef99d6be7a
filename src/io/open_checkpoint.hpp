#pragma once
#include <filesystem>

#include "lmq/io/reader.hpp"

namespace lmq {

/// The catalogue of a checkpoint: which files, their headers (read by parallel_for), the index's word on them, the
/// scales. Errors as open_reader.
[[nodiscard]] Catalogue read_catalogue(const std::filesystem::path& input, std::span<const InputFormat> more);

}  // namespace lmq
