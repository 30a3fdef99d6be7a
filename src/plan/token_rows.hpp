#pragma once
#include "lmq/base/tensor.hpp"

namespace lmq {

/// Are its rows the tokens of a vocabulary (an embedding or the head over it), told by name and shape? Vocabularies come
/// sorted: tokenizers number merges as they find them, the most frequent first. Small ones begin with hundreds of bytes
/// and control tokens that hardly occur, so those of fewer than 8,192 rows do not count.
[[nodiscard]] bool rows_are_tokens(const TensorInfo& tensor) noexcept;

}  // namespace lmq
