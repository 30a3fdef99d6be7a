#pragma once
#include <filesystem>

#include "lmq/io/importance_file.hpp"

namespace lmq {

/// What an importance file knows, by its names.
enum class ImportanceContents : std::uint8_t {
  curvature,      ///< whole matrices (`NAME.outer`, or `NAME.gram`) for a matrix of the checkpoint
  columns_alone,  ///< an imatrix, or nothing but `NAME.columns`: which of a tensor's inputs matter, not which tensors
  other,
};
/// options: read_hdf5. Errors: those of opening the file.
[[nodiscard]] ImportanceContents contents_of_importance(const std::filesystem::path& path, const Catalogue& checkpoint,
                                                        const ImportanceFile::Options& options);

}  // namespace lmq
