#pragma once
#include <cstddef>
#include <span>
#include <string>

#include "lmq/base/trellis_unit.hpp"
#include "lmq/codec/record.hpp"

namespace lmq {

/// Codes the unit into one self-contained record (docs/format.md, section 3). Integer arithmetic: the bytes are a
/// function of the unit alone. The built-in tables are replaced by the unit's own where that takes fewer bytes.
/// Errors: Errc::internal when the unit contradicts itself. Cost: 45 to 75 ns and 8 bytes a weight, one core.
[[nodiscard]] EncodedRecord encode_trellis_record(const TrellisUnit& unit);

/// True when the bytes begin like a trellis record; read_record_header and decode_record_values take these, too.
[[nodiscard]] bool is_trellis_record(std::span<const std::byte> record) noexcept;

/// Steps, classes and codes of a record, in plain loops; the checks of decode_record_values.
[[nodiscard]] TrellisUnit decode_trellis_record(std::span<const std::byte> record, const std::string& source);

}  // namespace lmq
