#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lmq/codec/record.hpp"
#include "lmq/io/reader.hpp"
#include "lmq/plan/plan.hpp"
#include "lmq/quant/codebook.hpp"
#include "lmq/quant/unit.hpp"

namespace lmq {

/// A codebook that serves a whole tensor, as the file lists it: the numbers its records store (of factors the levels).
struct ListedCodebook {
  CodebookKind kind = CodebookKind::table;
  std::vector<float> numbers;
  friend bool operator==(const ListedCodebook&, const ListedCodebook&) = default;
};
/// Of a record; empty when it has several.
[[nodiscard]] ListedCodebook listed_codebook(const QuantizedUnit& unit);
[[nodiscard]] ListedCodebook listed_codebook(const Codebook& codebook);
/// What the numbers of a codebook of a kind are: "levels", "low, step".
[[nodiscard]] std::string_view words_for(CodebookKind kind) noexcept;

/// What is known of a quantized unit beside its record.
struct UnitResult {
  UnitStats stats;
  RecordLedger ledger;
  double entropy_bits = 0;
  std::uint64_t source_digest = 0;  ///< digest64 of the bytes of the reader's view
  ListedCodebook codebook;          ///< when the record has one of its own; else empty
  [[nodiscard]] std::vector<std::byte> to_bytes() const;
  [[nodiscard]] static UnitResult from_bytes(std::span<const std::byte> bytes, const std::string& source);
};

/// A unit as the file is made of it. Kept units have neither record nor errors; their digest is known once copied.
struct UnitRecord {
  std::uint64_t bytes = 0;   ///< of the record
  std::uint64_t digest = 0;  ///< digest64 of the record
  UnitResult result;
};

/// All that the output is made of, beside the records and kept bytes themselves.
struct OutputContents {
  const Catalogue& catalogue;
  const Plan& plan;
  const std::vector<UnitRecord>& units;           ///< [units]
  const std::vector<const Codebook*>& codebooks;  ///< [scopes]
  const std::string& recipe_json;
  const std::string& provenance_json;
};

/// One tensor of the checkpoint in numbers: a line of the report that quantize shows, the file keeps and inspect reads.
struct TensorLine {
  std::string name;
  std::string dtype;  ///< in the checkpoint
  std::vector<std::uint64_t> shape;
  std::string method;  ///< "raw" when kept, "folded" when it went into another tensor
  std::string reason;  ///< why it is not quantized
  std::uint64_t weights = 0, source_bytes = 0, stored_bytes = 0;
  double bits_per_weight = 0;  ///< every stored byte of its records
  double squared_error = 0, energy = 0, largest_error = 0;
  std::optional<double> weighted_error;   ///< sum of importance * error^2, where there is importance
  std::optional<double> weighted_energy;  ///< sum of importance * weight^2, likewise
  double entropy_bits = 0;                ///< of its codes, per weight
  [[nodiscard]] bool quantized() const noexcept { return method != "raw" && method != "folded"; }
};

/// One line per tensor of the catalogue. Sums run over the units in order.
[[nodiscard]] std::vector<TensorLine> report_tensors(const OutputContents& contents);

}  // namespace lmq
