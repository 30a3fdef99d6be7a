#pragma once
#include <cstdint>
#include <string_view>

namespace lmq {

/// What is known of a tensor's importance.
enum class ImportanceKind : std::uint8_t {
  columns = 0,  ///< of its columns alone (mean squared inputs): compares weights of the tensor, not tensors
  rows = 1,     ///< of its rows alone (mean squared output gradients)
  outer = 2,    ///< of both: importance of a weight is the product
  weights = 3,  ///< of each weight (squared gradients)
};

/// "columns", "rows", "rows x columns", "weights".
[[nodiscard]] constexpr std::string_view name(ImportanceKind kind) noexcept {
  constexpr std::string_view kNames[] = {"columns", "rows", "rows x columns", "weights"};
  return kNames[static_cast<std::size_t>(kind)];
}

}  // namespace lmq
