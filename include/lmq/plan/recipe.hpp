#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lmq/quant/unit.hpp"

namespace lmq {

/// What to do with the tensors a pattern names; unset fields take the recipe's defaults.
struct Rule {
  std::string match = "*";                   ///< glob over the whole tensor name: * ? [abc] [!abc]
  bool keep = false;                         ///< store raw
  std::optional<std::string> method;
  std::optional<std::size_t> levels;         ///< "levels": 2..256, or "bits": 1..8
  std::optional<Granularity> granularity;
  std::optional<std::uint64_t> group;
  std::optional<LevelType> level_type;       ///< default f32 for model and tensor, f16 for row and group
  std::optional<CoderChoice> coder;
  std::optional<std::uint64_t> row_axes;     ///< leading axes that make a row index; default 2 for stacks of experts, else 1
};

/// What the user wants. The first rule that matches a tensor decides.
struct Recipe {
  std::vector<Rule> rules;
  std::uint64_t min_elements = 1024;         ///< smaller tensors are kept
  bool keep_vectors = true;                  ///< tensors of fewer than two dimensions are kept
  enum class Nonfinite : std::uint8_t { refuse, keep } nonfinite = Nonfinite::refuse;

  /// JSON text (docs/recipe.md). Errc::usage with `source`, the place and the known keys for anything unknown.
  [[nodiscard]] static Recipe parse(std::string_view json, const std::string& source);
  /// Canonical JSON: equal recipes give equal text.
  [[nodiscard]] std::string canonical_json() const;
};

/// Glob match of a whole name; '*' also crosses dots and slashes.
[[nodiscard]] bool glob_match(std::string_view pattern, std::string_view name) noexcept;

}  // namespace lmq
