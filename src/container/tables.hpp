#pragma once
#include <array>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "lmq/container/contents.hpp"
#include "lmq/container/quantized_file.hpp"

namespace lmq {

/// Codebooks that serve whole tensors, each once; their numbers stay where the contents have them.
struct Codebooks {
  struct Row {
    CodebookKind kind = CodebookKind::table;
    std::span<const float> numbers;
  };
  std::vector<Row> rows;
  std::vector<std::int64_t> row_of;         ///< [tensors] -1: the tensor has several codebooks, or none
  std::deque<std::array<float, 2>> shared;  ///< low and step of grids of scopes
  /// The bytes of all rows by significance (shuffle), rows as wide as the widest, which shorter ones reach with NaN;
  /// [rows, widest].
  [[nodiscard]] std::vector<std::byte> planes() const;
  [[nodiscard]] std::size_t widest() const noexcept;
};
[[nodiscard]] Codebooks gather_codebooks(const OutputContents& contents);

/// The text at container::kTensors (docs/format.md): JSON, a column for every fact, since equal facts side by side
/// deflate to nearly nothing. Numbers are std::to_chars', which the standard pins to one spelling.
[[nodiscard]] std::string tensors_text(const OutputContents& contents, const std::vector<TensorLine>& tensors,
                                       const Codebooks& codebooks);
/// The provenance with `shard_of` as a list in the order of the tensors instead of an object, and the reverse.
[[nodiscard]] std::string packed_provenance(const OutputContents& contents);

/// What the tables of a file say, checked for sizes. `file`: layout and places are known.
struct StoredTables {
  nlohmann::json recipe, provenance;
  std::vector<StoredTensor> tensors;
  std::vector<StoredUnit> units;
  std::vector<QuantizedFile::Purpose> ledger;
  std::string plan_digest;
  std::vector<std::string> findings;
};
[[nodiscard]] StoredTables read_version1(const QuantizedFile& file);
[[nodiscard]] StoredTables read_version2(const QuantizedFile& file);

/// The codebook that version 1 lists for a tensor.
[[nodiscard]] std::optional<std::vector<float>> version1_codebook(const QuantizedFile& file, const std::string& tensor);

/// Errc::malformed: another program wrote the tensor anew, without our filter.
[[noreturn]] void refuse_stripped(const QuantizedFile& file, const TensorLine& line);

/// A text dataset as JSON. Errc::malformed.
[[nodiscard]] nlohmann::json read_json(const QuantizedFile& file, const std::string& path);
/// A finding for every dataset that is neither ours nor one of `tensors`.
void find_strangers(const QuantizedFile& file, const std::vector<StoredTensor>& tensors,
                    std::vector<std::string>& findings);
[[nodiscard]] std::vector<std::uint64_t> checkpoint_shape(const DatasetLayout& dataset, DType dtype);
/// The element count of a shape; false when it overflows.
[[nodiscard]] bool product_of(const std::vector<std::uint64_t>& shape, std::uint64_t& product);

}  // namespace lmq
