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

/// What a file is compared with. Without a reader only the file itself is checked.
struct Original {
  const Reader* reader = nullptr;
  std::vector<std::int64_t> tensor_of;  ///< [file's tensors] index into the catalogue, -1: cannot be compared
  const ImportanceFile* importance = nullptr;
  bool weighted_is_squared = false;  ///< the file was made without importance
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

/// Checks units first, first + stride, ...: digests, every record decoded, and against the original its bytes and
/// errors. Never throws for what the file or the original holds. Ascending by unit.
[[nodiscard]] std::vector<UnitFound> check_units(const QuantizedFile& file, const Original& original,
                                                 std::uint64_t first, std::uint64_t stride, Progress& progress);

}  // namespace lmq::app
