#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lmq/container/quantized_file.hpp"
#include "lmq/io/importance_file.hpp"
#include "lmq/io/reader.hpp"
#include "terminal.hpp"

namespace lmq::app {

/// What records are compared with. Without a reader only the file itself is checked.
struct Original {
  const Reader* reader = nullptr;
  std::vector<std::int64_t> tensor_of;  ///< [file's tensors] index into the catalogue, -1: cannot be compared
  const ImportanceFile* importance = nullptr;
  bool weighted_is_squared = false;      ///< the file was made without importance
  const CodebookList* listed = nullptr;  ///< the file's own list; nullptr: it cannot be read
};

/// A difference, and the unit it was found in (for a fixed order).
struct Difference {
  std::uint64_t unit = 0;
  std::string text;
};

/// What a unit was found to be.
struct UnitFound {
  std::uint64_t unit = 0;
  std::uint64_t stored = 0;        ///< digest64 of its stored bytes; 0: they could not be read
  std::vector<std::string> texts;  ///< differences
};

/// Units first, first + stride, ... of a rank.
struct Share {
  std::uint64_t first = 0, stride = 1;
};

/// Checks a share of the units: digests, every record decoded, and against the original its bytes and errors. Never
/// throws for what the file or the original holds. Ascending by unit.
/// memory  bytes that stored and original bytes of units in hand may take; a unit larger than a thread's part is
///         checked alone, by all threads
[[nodiscard]] std::vector<UnitFound> check_units(const QuantizedFile& file, const Original& original,
                                                 const Share& share, std::uint64_t memory, Progress& progress);
/// The least memory that serves for check_units.
[[nodiscard]] std::uint64_t most_bytes_held(const QuantizedFile& file, const Original& original);

}  // namespace lmq::app
