#pragma once
#include <set>
#include <string>

#include "lmq/io/curvature_names.hpp"

namespace lmq {

/// Whether the names of an importance file say that it knows whole matrices.
/// matrices  names of the Gram matrices that the checkpoint could have, with dots
[[nodiscard]] bool knows_curvature(const Catalogue& file, const std::set<std::string>& matrices);

/// The number, from 1 to 1e15, that `samples` of the file's metadata says; 0 where it says none.
[[nodiscard]] double samples_of(const Catalogue& file);

}  // namespace lmq
