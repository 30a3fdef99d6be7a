#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "lmq/base/dtype.hpp"
#include "lmq/base/quantized_unit.hpp"

namespace lmq {

/// Bytes of a record by purpose; they sum to the record's size.
struct RecordLedger {
  std::uint64_t header = 0;  ///< magic, geometry, checksum
  std::uint64_t codebooks = 0;
  std::uint64_t tables = 0;  ///< coder tables, block sizes and coder states
  std::uint64_t codes = 0;   ///< the coded symbols themselves
  [[nodiscard]] std::uint64_t total() const noexcept { return header + codebooks + tables + codes; }
};

struct EncodedRecord {
  std::vector<std::byte> bytes;
  RecordLedger ledger;
  double entropy_bits = 0;  ///< order-0 entropy of the codes, bits in all: the bound for what was stored
};

/// Codes the unit into one self-contained record (docs/format.md). Integer arithmetic in the payload: the bytes are a
/// function of the unit and the choice alone. Blocks of the record are coded in parallel.
/// Errors: Errc::internal when the unit contradicts itself. Cost: about 1 ns per weight on one core.
[[nodiscard]] EncodedRecord encode_record(const QuantizedUnit& unit, CoderChoice choice);

/// The same into a record that is used again: its memory is kept. Memory that is touched for the first time costs more
/// than coding does.
void encode_record(const QuantizedUnit& unit, CoderChoice choice, EncodedRecord& into);

/// Weights a record can hold (an HDF5 chunk of floats stays below 4 GiB).
inline constexpr std::uint64_t kMaxRecordCount = (1ULL << 30) - 1;

/// What a record's header says, checked against the record's size; enough to allocate.
struct RecordHeader {
  std::uint16_t method = 0;
  DType source = DType::f32;
  std::uint64_t count = 0;
  std::uint64_t cols = 0;
  std::uint64_t group = 0;
  CodebookKind kind = CodebookKind::table;
  LevelType level_type = LevelType::f32;
  std::uint32_t levels = 0;
  CoderChoice coder = CoderChoice::fixed;  ///< any but cheapest
  unsigned code_bits = 0;   ///< fixed, planes: bits per code; rans: log2 of the sum of frequencies; huffman: of the
                            ///< longest word; 0: one code only
  std::uint8_t detail = 0;  ///< rans, huffman: number of frequencies or lengths - 1; code_bits 0: the code
  int exponent = 0;         ///< power of two of f16 levels
};
/// The fields alone are checked here, the checksum by the two that decode.
/// `source` names file and tensor in errors (Errc::malformed). Records are hostile: any byte string is handled.
[[nodiscard]] RecordHeader read_record_header(std::span<const std::byte> record, const std::string& source);
/// Codebooks and codes of a record; checks checksum, tables, final coder states and code ranges.
[[nodiscard]] QuantizedUnit decode_record(std::span<const std::byte> record, const std::string& source);
/// The dequantized weights, [count] floats, without materialising all codes; the same checks. About 0.5 ns per weight
/// on one core, memory apart.
void decode_record_values(std::span<const std::byte> record, std::span<float> values, const std::string& source);

/// Weights of a piece of decode_record_pieces.
inline constexpr std::size_t kRecordPiece = 4096;
/// The dequantized weights in pieces: use(begin, values) for begin = 0, kRecordPiece, ... in any order and from several
/// threads, the last piece shorter; the same checks, which may fail after pieces were used. Nothing of the size of the
/// weights is held, but for records of a trellis.
void decode_record_pieces(std::span<const std::byte> record, const std::string& source,
                          const std::function<void(std::uint64_t begin, std::span<const float> values)>& use);
/// The codebooks of a record: decode_record without codes; the same checks but those of the codes.
[[nodiscard]] QuantizedUnit decode_record_book(std::span<const std::byte> record, const std::string& source);

}  // namespace lmq
