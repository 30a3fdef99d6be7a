#include "lmq/quant/layer_methods.hpp"

#include <algorithm>

namespace lmq {

bool sees_layers(const QuantizerEntry& method) {
  constexpr std::size_t kAny = 2;  // levels: of no method that sees layers
  return method.make(default_options(method, kAny))->traits().sees == Sees::layer;
}

const QuantizerEntry* layer_method(std::span<const std::string_view> options) {
  for (const QuantizerEntry& method : quantizers()) {
    const auto has = [&](std::string_view name) {
      return std::ranges::find(method.options, name, &MethodOption::name) != method.options.end();
    };
    if (std::ranges::all_of(options, has) && sees_layers(method)) return &method;
  }
  return nullptr;
}

}  // namespace lmq
