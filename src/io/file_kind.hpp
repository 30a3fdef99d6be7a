#pragma once
#include <string_view>

#include "lmq/io/file.hpp"

namespace lmq {

enum class FileKind { safetensors, json, hdf5, gguf, other, unknown };

/// What a file is, by its first bytes (names lie). `words` describes what is foreign for people ("a zip archive"), and
/// FileKind::unknown where it cannot be safetensors either; `advice` says what to do with it.
struct FileFormat {
  FileKind kind = FileKind::unknown;
  std::string_view words = {}, advice = {};
  /// Neither safetensors nor a JSON text.
  [[nodiscard]] bool is_foreign() const noexcept { return !words.empty(); }
};
/// What is read, for messages.
inline constexpr std::string_view kReadKinds = "safetensors, an index of them, GGUF, PyTorch, NumPy, HDF5, Keras";
[[nodiscard]] FileFormat recognize(const File& file);

}  // namespace lmq
