#pragma once
#include "lmq/quant/quantizer.hpp"

namespace lmq {

/// Methods that look at Importance::gram by rows and groups: all that see rows but those whose codebooks are factors of
/// rows and columns.
[[nodiscard]] bool looks_at_gram(const Traits& traits) noexcept;

}  // namespace lmq
