#pragma once
#include <span>
#include <string_view>

#include "lmq/quant/quantizer.hpp"

namespace lmq {

/// Whether the method sees layers.
[[nodiscard]] bool sees_layers(const QuantizerEntry& method);
/// The first method of the table that sees layers and has all of these options (none: any will do); nullptr if there is none.
[[nodiscard]] const QuantizerEntry* layer_method(std::span<const std::string_view> options = {});

}  // namespace lmq
