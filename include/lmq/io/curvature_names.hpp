#pragma once
#include <filesystem>

#include "lmq/io/importance_file.hpp"

namespace lmq {

/// Whether an importance file has whole matrices (`NAME.outer`, or `NAME.gram`) for a matrix of the checkpoint: its
/// names alone are looked at. options: read_hdf5. Errors: those of opening it.
[[nodiscard]] bool has_curvature(const std::filesystem::path& path, const Catalogue& checkpoint,
                                 const ImportanceFile::Options& options);

}  // namespace lmq
