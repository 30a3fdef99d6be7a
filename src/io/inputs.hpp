#pragma once
#include <filesystem>
#include <span>

#include "lmq/io/file.hpp"
#include "lmq/io/input_formats.hpp"

// The formats of the table in input_formats.cpp: how each is told, and its catalogue. Errors as open_reader.
namespace lmq {

[[nodiscard]] bool is_gguf(const File& file);
/// All parts of a split file. Tensors of block types are F32 (TensorInfo::block_type); dimensions are row-major.
/// Metadata: the keys with one value, as text.
[[nodiscard]] Catalogue read_gguf(const std::filesystem::path& path);

[[nodiscard]] bool is_npy(const File& file);
/// One array; its name is the file's without ".npy".
[[nodiscard]] Catalogue read_npy(const std::filesystem::path& path);
/// A zip archive of .npy files alone.
[[nodiscard]] bool is_npz(const File& file);
/// Plain or deflated arrays of numbers; others are named in a warning.
[[nodiscard]] Catalogue read_npz(const std::filesystem::path& path);

/// A zip archive with a data.pkl below its one folder.
[[nodiscard]] bool is_torch(const File& file);
/// All parts of a numbered set. Names are keys of the dictionary, nested ones joined by dots; of a training's state only
/// the model's weights. A tensor that is there under several names is listed once, under the first; the metadata has
/// each other name with it, as safetensors.torch.load_model wants it.
[[nodiscard]] Catalogue read_torch(const std::filesystem::path& path);

/// Which format of the table (and of `more`) an input is in; nothing for safetensors and what is no known format.
struct ChosenFormat {
  const InputFormat* format = nullptr;
  std::filesystem::path file;
};
[[nodiscard]] ChosenFormat choose_format(const std::filesystem::path& input, std::span<const InputFormat> more);

}  // namespace lmq
