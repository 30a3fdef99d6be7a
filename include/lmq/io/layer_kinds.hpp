#pragma once
#include <cstdint>
#include <filesystem>
#include <vector>

#include "lmq/io/reader.hpp"

namespace lmq {

/// What a tensor is to runtimes that replace the linear layers of a model.
enum class LayerKind : std::uint8_t {
  linear,      ///< weight [outputs, inputs] of a linear layer in a numbered block of the model
  transposed,  ///< [inputs, outputs]: Conv1D of GPT-2 and its kin
  other,       ///< embeddings, heads, routers of experts, stacks, vectors, and all outside of numbered blocks
};

/// The kind of each tensor, told by its name and shape and by the model_type of config.json in `folder` (may be empty).
/// Errors as for reading config.json of a checkpoint. Cost: O(tensors).
[[nodiscard]] std::vector<LayerKind> layer_kinds(const Catalogue& checkpoint, const std::filesystem::path& folder);

}  // namespace lmq
