#pragma once
#include <filesystem>
#include <vector>

#include "lmq/io/file.hpp"
#include "lmq/io/importance_file.hpp"

namespace lmq {

/// llama.cpp's importance matrix: for each of its entries a tensor of the catalogue (F32; GGUF's name) and a stack that
/// says what to divide by. The older format does not tell how many experts an entry has: its stacks have one slice.
struct Imatrix {
  Catalogue catalogue;
  std::vector<ImportanceStack> stacks;  ///< [tensors]
};

/// The older binary format: no magic number, so every length must fit the file and nothing may be left over.
/// Errc::malformed with file, byte and field.
[[nodiscard]] Imatrix read_binary_imatrix(const std::filesystem::path& path);
/// True when the first entry of a file could be one of the older format: few enough entries and a printable name.
[[nodiscard]] bool looks_like_binary_imatrix(const File& file);
/// The GGUF form. Errc::unsupported for a GGUF file that is no imatrix, Errc::malformed.
[[nodiscard]] Imatrix read_gguf_imatrix(const std::filesystem::path& path);

}  // namespace lmq
