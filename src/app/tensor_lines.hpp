#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "lmq/container/contents.hpp"

namespace lmq::app {

/// The whole file in numbers.
struct Totals {
  std::uint64_t weights = 0, quantized_weights = 0, quantized_bytes = 0, quantized_source_bytes = 0;
  std::uint64_t source_bytes = 0, file_bytes = 0;
  double squared_error = 0, energy = 0;
  [[nodiscard]] double quantized_bits() const noexcept;  ///< per quantized weight: every byte of its records
  [[nodiscard]] double file_bits() const noexcept;       ///< per weight: every byte of the file
  /// Bytes of the quantized tensors in the checkpoint over all bytes of their records: the compression ratio of Choi,
  /// El-Khamy & Lee 2017 with codes, codebooks, coder tables and headers counted as they are stored. 0: none.
  [[nodiscard]] double quantized_ratio() const noexcept;
};
[[nodiscard]] Totals totals_of(const std::vector<TensorLine>& lines, std::uint64_t file_bytes);

/// Lines beyond which tables group tensors.
inline constexpr std::size_t kMaxLines = 60;
/// A table with one line per tensor, `width` columns wide. Beyond `most` tensors, those whose names differ in numbers
/// only share a line, and what is still beyond kMaxLines lines is summed up in a last one. Errors by importance have a
/// column where a tensor has some.
[[nodiscard]] std::string tensor_table(const std::vector<TensorLine>& lines, std::size_t width,
                                       std::size_t most = kMaxLines);
/// The whole-file numbers as lines of text.
[[nodiscard]] std::string totals_text(const Totals& totals);

[[nodiscard]] nlohmann::json to_json(const std::vector<TensorLine>& lines);
[[nodiscard]] nlohmann::json to_json(const Totals& totals);

}  // namespace lmq::app
