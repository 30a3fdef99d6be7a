#pragma once
#include <filesystem>

#include "lmq/io/importance_file.hpp"

namespace lmq {

/// What an importance file knows, by its names.
struct ImportanceFacts {
  bool curvature = false;  ///< whole matrices (`NAME.outer`, or `NAME.gram`) for a matrix of the checkpoint
  double samples = 0;  ///< tokens or images behind its numbers (`samples` of the file's metadata); 0: it does not say
};
/// options: read_hdf5. Errors: those of opening the file.
[[nodiscard]] ImportanceFacts facts_of_importance(const std::filesystem::path& path, const Catalogue& checkpoint,
                                                  const ImportanceFile::Options& options);

}  // namespace lmq
