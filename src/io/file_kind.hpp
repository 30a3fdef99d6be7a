#pragma once
#include <string_view>

#include "lmq/io/file.hpp"

namespace lmq {

enum class FileKind { safetensors, json, other, unknown };

/// What a file is, by its first bytes (names lie). `words` describes FileKind::other for people ("an HDF5 file"), and
/// FileKind::unknown where it cannot be safetensors either; `advice` says what to do with it.
struct FileFormat {
  FileKind kind = FileKind::unknown;
  std::string_view words = {}, advice = {};
};
/// What is read, for messages.
inline constexpr std::string_view kReadKinds = "safetensors, an index of them, GGUF, PyTorch, NumPy, HDF5, Keras";
[[nodiscard]] FileFormat recognize(const File& file);

}  // namespace lmq
