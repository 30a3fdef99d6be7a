#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "lmq/io/layout.hpp"
#include "lmq/io/reader.hpp"
#include "lmq/plan/plan.hpp"
#include "lmq/run/quantize_run.hpp"
#include "lmq/run/task.hpp"

namespace lmq {

/// What rank 0 knows of a finished unit. Kept units have neither record nor errors; their digest is known once copied.
struct UnitRecord {
  SpoolPlace place;  ///< of the record
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

/// One line per tensor of the catalogue. Sums run over the units in order.
[[nodiscard]] std::vector<TensorReport> report_tensors(const OutputContents& contents);

/// The output file as docs/format.md describes it: its layout, and the bytes of the datasets below /lmq.
struct Output {
  FileLayout layout;
  std::vector<std::int64_t> dataset_of;                ///< [tensors] index into layout.datasets, -1: folded
  std::map<std::string, std::vector<std::byte>> side;  ///< by dataset path; digests of kept units and the ledger are 0
  std::uint64_t raw_bytes = 0;                         ///< of kept tensors
};
[[nodiscard]] Output lay_out(const OutputContents& contents, const std::vector<TensorReport>& tensors);

/// Stored bytes of a unit: its record, or its part of a kept tensor.
[[nodiscard]] std::uint64_t stored_bytes(const OutputContents& contents, std::uint64_t unit);
/// Address of a unit's bytes in the file.
[[nodiscard]] std::uint64_t address_of(const OutputContents& contents, const Output& output, const FilePlaces& places,
                                       std::uint64_t unit);
/// Fills in what is known only now: digests of the kept units [units] (others 0) and the ledger.
void complete_side(const OutputContents& contents, Output& output, const FilePlaces& places,
                   const std::vector<std::uint64_t>& kept_digests);

}  // namespace lmq
