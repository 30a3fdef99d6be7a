#pragma once
#include <filesystem>
#include <string>

namespace lmq {

/// A warning of a file that is read alone and is a part of a model: by its name ("consolidated.00.pth" with others beside
/// it; "x_1_of_2.bin", but for safetensors, whose finder says so), or by an index of Keras beside it
/// (NAME.weights.json). Empty of other files.
[[nodiscard]] std::string part_warning(const std::filesystem::path& file);

/// Errc::unsupported for a folder without other safetensors whose model lies in parts that are not put together: slices
/// of every tensor, or shards that Keras wrote.
void refuse_unjoined_parts(const std::filesystem::path& folder);

}  // namespace lmq
