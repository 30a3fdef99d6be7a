#pragma once
#include <memory>
#include <string>

#include "lmq/base/error.hpp"
#include "lmq/quant/unit.hpp"

namespace lmq {

/// A spec's method with its options. Errc::internal when no method has that id.
[[nodiscard]] inline std::unique_ptr<Quantizer> make_quantizer(const QuantSpec& spec) {
  const QuantizerEntry* entry = find_quantizer(spec.method);
  if (entry == nullptr) fail(Errc::internal, "method id " + std::to_string(spec.method) + " is not in the registry");
  return entry->make(spec.options);
}

}  // namespace lmq
