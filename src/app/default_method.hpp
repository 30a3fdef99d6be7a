#pragma once
#include <optional>

#include "lmq/io/reader.hpp"
#include "options.hpp"

namespace lmq::app {

/// Where the command line names no method, nor anything that only codebooks have: the options with the first method that
/// sees layers, if a size for the whole file is asked for and there is no importance, or if the importance file has
/// curvature between weights or nothing but columns, which are then drawn to their mean (then 4 bits where no size is
/// said). Measured: docs/quality.md. Nothing when the options
/// stay as they are. Errors: those of opening the importance file.
[[nodiscard]] std::optional<Options> with_layer_method(const Options& options, const Catalogue& checkpoint);

}  // namespace lmq::app
