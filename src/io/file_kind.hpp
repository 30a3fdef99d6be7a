#pragma once
#include <string_view>

#include "lmq/io/file.hpp"

namespace lmq {

enum class FileKind { safetensors, json, other, unknown };

/// What a file is, by its first bytes (names lie). `words` describes FileKind::other for people ("an HDF5 file"),
/// `advice` says what to do with it.
struct FileFormat {
  FileKind kind = FileKind::unknown;
  std::string_view words = {}, advice = {};
};
[[nodiscard]] FileFormat recognize(const File& file);

}  // namespace lmq
