#pragma once
#include <optional>

#include "lmq/io/reader.hpp"
#include "options.hpp"

namespace lmq::app {

/// Where the command line names no method, nor anything that only codebooks have, and the importance file has curvature
/// between weights: the options with the first method that sees layers, and a size for the whole file where none is
/// said. Nothing when the options stay as they are. Errors: those of opening the importance file.
[[nodiscard]] std::optional<Options> with_curvature(const Options& options, const Catalogue& checkpoint);

}  // namespace lmq::app
