#pragma once
#include <cstdint>

#include "lmq/io/reader.hpp"
#include "model_config.hpp"

namespace lmq {

/// Which axis of a matrix, or of each matrix of a stack of experts, counts the inputs of a layer.
enum class InputAxis : std::uint8_t {
  last,     ///< [outputs, inputs], [experts, outputs, inputs]: linear layers
  first,    ///< [inputs, outputs], [experts, inputs, outputs]: Conv1D of GPT-2, some stacks of experts
  unknown,  ///< nothing says it: where both extents are equal an importance of inputs cannot be placed
};

/// Told by the kind of tensor: names of Conv1D layers and stacks of experts, the shapes of their siblings
/// (gate_up_proj has twice the outputs that down_proj has inputs; c_fc is four times as wide as it is high), the
/// model_type of config.json. All other tensors: last.
[[nodiscard]] InputAxis input_axis(const TensorInfo& weight, const Catalogue& checkpoint, const ModelConfig& config);

}  // namespace lmq
