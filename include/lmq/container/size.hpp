#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "lmq/io/layout.hpp"
#include "lmq/io/reader.hpp"
#include "lmq/plan/plan.hpp"

namespace lmq {

/// The output before it is made, in bytes.
struct SizeEstimate {
  std::uint64_t records = 0;    ///< as far as `record_bytes` is right
  std::uint64_t kept = 0;       ///< tensors kept raw: exact
  std::uint64_t container = 0;  ///< all else: tables, codebooks, HDF5's metadata, seal; within 10 %
  [[nodiscard]] std::uint64_t total() const noexcept { return records + kept + container; }
};

/// Most bytes that the record of a unit takes, but for coder tables: codes of equal probability (a whole number of bits
/// each where the recipe wants fixed width or planes), codebooks, header.
[[nodiscard]] std::uint64_t record_bound(const Plan& plan, std::uint64_t unit);

/// About what a scope with a shared codebook of so many levels takes beside codes: headers, codebooks and coder tables of
/// its records, and its codebook once more where the file lists it.
[[nodiscard]] std::uint64_t scope_side_bytes(const Plan& plan, const Scope& scope, std::size_t levels);

/// The one estimate of the size of an output, for plan, preflight and budget: the file is laid out as it will be, with
/// statistics and levels of as many digits as real ones, and nothing is written. Cost: 4 us a tensor and 2 us a unit.
/// record_bytes  bytes of a quantized unit's record
[[nodiscard]] SizeEstimate estimate_size(const Catalogue& catalogue, const Plan& plan, const std::string& recipe_json,
                                         const std::string& provenance_json, const LayoutFormat& format,
                                         const std::function<std::uint64_t(std::uint64_t unit)>& record_bytes);

}  // namespace lmq
