#pragma once
#include <optional>

#include "lmq/io/reader.hpp"
#include "lmq/plan/recipe.hpp"
#include "options.hpp"

namespace lmq::app {

/// The place of the rule that stands behind those of a recipe file for what they leave.
inline constexpr const char* kRest = "the default";
/// Whether a rule of the recipe itself matches every tensor.
[[nodiscard]] bool decides_all(const Recipe& recipe);

/// Tokens or images behind the numbers of the importance file; 0 where there is none or it does not say.
[[nodiscard]] double samples_behind(const Options& options, const Catalogue& checkpoint);

/// Where the command line (or a recipe file with a size, for the tensors that its rules leave) names no method, nor
/// anything that only codebooks have: the options with the first method that sees layers, if a size for the whole file is
/// asked for or there is an importance file; diagonals (no curvature between weights) are then drawn to their mean. Where no size is said it is 4 bits a weight (job.cpp: or the least that can be
/// reached). Measured: docs/quality.md. Nothing when the options stay as they are. Errors: those of opening the
/// importance file.
[[nodiscard]] std::optional<Options> with_layer_method(const Options& options, const Recipe& recipe,
                                                       const Catalogue& checkpoint);

}  // namespace lmq::app
