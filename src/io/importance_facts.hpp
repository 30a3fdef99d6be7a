#pragma once
#include <set>
#include <string>

#include "lmq/io/curvature_names.hpp"

namespace lmq {

/// What the names of an importance file say that it knows.
/// stacks    it has experts of an imatrix
/// matrices  names of the Gram matrices that the checkpoint could have, with dots
[[nodiscard]] ImportanceContents contents_of(const Catalogue& file, bool stacks, const std::set<std::string>& matrices);

/// The number, from 1 to 1e15, that `samples` of the file's metadata says; 0 where it says none.
[[nodiscard]] double samples_of(const Catalogue& file);

}  // namespace lmq
