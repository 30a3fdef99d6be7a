#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lmq/base/dtype.hpp"

namespace lmq::app {

/// How a matrix is packed: value = scale * q, q in [-2^(bits-1), 2^(bits-1) - 1].
struct PackScheme {
  int bits = 0;
  std::uint64_t group = 0;   ///< columns that share a scale; 0: all of a row
  DType scale = DType::f16;  ///< type of the scales: F16, BF16 or F32
  auto operator<=>(const PackScheme&) const = default;
};

/// A matrix as integers.
struct PackedMatrix {
  PackScheme scheme;
  std::uint64_t rows = 0, columns = 0;
  std::vector<std::uint8_t> codes;  ///< q + 2^(bits-1), row-major
  std::vector<float> scales;        ///< rows * groups(), row-major
  [[nodiscard]] std::uint64_t groups() const noexcept { return scheme.group == 0 ? 1 : columns / scheme.group; }
};

/// A tensor that stands for a part of a packed matrix: MODULE.suffix.
struct PackedPart {
  std::string suffix;
  DType dtype;
  std::vector<std::uint64_t> shape;
};

/// A family of loaders and how their files hold packed linear layers.
struct PackedLayout {
  std::string_view name;          ///< quant_method of config.json
  std::span<const int> widths;    ///< bits that every release of its loaders reads, ascending
  std::span<const DType> scales;  ///< types of scales, the usual one first
  /// Why such a matrix cannot be written; empty: it can.
  std::string (*obstacle)(std::uint64_t rows, std::uint64_t columns, const PackScheme& scheme);
  /// The parts of a matrix of that size (codes and scales are not looked at).
  std::vector<PackedPart> (*parts)(const PackedMatrix& matrix);
  /// Bytes of one of its parts.
  std::vector<std::byte> (*bytes)(const PackedMatrix& matrix, const std::string& suffix);
  /// quantization_config: which modules are packed how, and linear modules that are not.
  nlohmann::ordered_json (*config)(const std::map<PackScheme, std::vector<std::string>>& modules,
                                   const std::vector<std::string>& plain);
};
/// compressed-tensors, format pack-quantized (vLLM, transformers): dense 32-bit words along the inputs.
[[nodiscard]] const PackedLayout& compressed_tensors_layout() noexcept;
/// GPTQ, version 1 (GPTQModel, vLLM, transformers): words along the inputs, outputs side by side, zeros minus one.
[[nodiscard]] const PackedLayout& gptq_layout() noexcept;

}  // namespace lmq::app
