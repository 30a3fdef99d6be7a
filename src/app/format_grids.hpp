#pragma once
#include <string>
#include <string_view>

#include "lmq/io/reader.hpp"
#include "lmq/plan/recipe.hpp"
#include "options.hpp"

namespace lmq::app {

/// Makes `rule` one whose codes an export holds: method (where none is said), levels, groups and zero point of a format of
/// `lmq export --to`, "gguf:q4_0" or "compressed-tensors:int4-g32". The rule says nothing of them yet. Errc::usage for a
/// word that names no such format, and for a method that has no uniform grids.
void take_format_grid(Rule& rule, const std::string& word);

/// The options with rules that keep what the format of --for leaves plain anyway (embeddings, heads, routers); unchanged
/// where nothing is left so. Errors as for reading config.json beside a checkpoint.
[[nodiscard]] Options with_plain_tensors(const Options& options, const Catalogue& checkpoint);

}  // namespace lmq::app
