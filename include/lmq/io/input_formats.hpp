#pragma once
#include <filesystem>
#include <span>
#include <string_view>

#include "lmq/io/file.hpp"
#include "lmq/io/reader.hpp"

namespace lmq {

/// One row of the table of input formats.
struct InputFormat {
  std::string_view name;                                 ///< "GGUF"
  std::string_view extensions;                           ///< what its files are usually called: ".bin .pt .pth"
  bool (*recognise)(const File& file);                   ///< by content; names lie
  Catalogue (*read)(const std::filesystem::path& path);  ///< of a file that was recognised; errors as open_reader
  bool renames = false;                                  ///< its names of tensors are not those of the model's modules
};
/// The formats that this room reads beside safetensors; those of other rooms are given to open_reader.
[[nodiscard]] std::span<const InputFormat> input_formats() noexcept;
/// Whether a format of that name (Catalogue::format) renames.
[[nodiscard]] bool format_renames(std::string_view name) noexcept;

/// What a file is by its first bytes, in words: "a safetensors file", "a text file", "no kind of file that is known".
[[nodiscard]] std::string_view kind_of(const File& file);

}  // namespace lmq
