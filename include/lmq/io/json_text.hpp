#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "lmq/base/error.hpp"

namespace lmq {

/// Deepest nesting of a JSON text that is read as a tree. Trees are shown and copied by recursion.
inline constexpr std::size_t kJsonDepth = 64;

/// The tree of a JSON text. Errc::malformed with `source` when the text is no JSON, holds a NUL byte, or nests deeper
/// than kJsonDepth levels. Tree: nlohmann::json, or ordered_json where the order of keys is to stay.
template <class Tree = nlohmann::json>
[[nodiscard]] Tree parse_json_text(std::string_view text, const std::string& source);

/// The same of a file of at most `most` bytes. Errc::missing, Errc::malformed, Errc::io.
template <class Tree = nlohmann::json>
[[nodiscard]] Tree read_json_file(const std::filesystem::path& path, std::uint64_t most);

/// JSON as Python writes it may hold Infinity, -Infinity and NaN, which JSON has not: each becomes a text that
/// bare_python_numbers takes for it.
[[nodiscard]] std::string quote_python_numbers(std::string_view text);
[[nodiscard]] std::string bare_python_numbers(std::string text);

/// read_json_file of a text by quote_python_numbers.
template <class Tree = nlohmann::json>
[[nodiscard]] Tree read_python_json_file(const std::filesystem::path& path, std::uint64_t most);

}  // namespace lmq
