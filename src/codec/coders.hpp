#pragma once
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "huffman_blocks.hpp"
#include "layout.hpp"
#include "lmq/base/quantized_unit.hpp"
#include "lmq/codec/model.hpp"
#include "lmq/codec/record.hpp"
#include "lmq/kernels/huffman.hpp"
#include "lmq/kernels/rans.hpp"
#include "rans_blocks.hpp"

namespace lmq {

/// What a coder makes of a unit's codes before they are written.
struct CodedPayload {
  unsigned bits = 0;        ///< the header's code bits
  std::uint8_t detail = 0;  ///< and its detail
  std::uint64_t bytes = 0;  ///< in the record
  RansModel rans = {};
  std::vector<std::byte> table;
  std::vector<RansBlock> blocks;
  HuffmanPayload words = {};
};

/// What all blocks of a record are decoded with.
struct DecodeTables {
  RansDecodeTable rans;
  HuffmanDecodeTable words;
};
/// Those of this thread; they are large, so they are kept.
[[nodiscard]] DecodeTables& decode_tables() noexcept;

/// Where the decoding of a block stands.
struct BlockCursor {
  RansCursor rans;
  HuffmanCursor words;
};

/// A coder of codes, for units with more than one: a line of lmq/base/coders.inc and a file with its functions. No
/// other place compares a CoderChoice. Errors are Errc::malformed (open) or the words of what is wrong (null: nothing).
struct Coder {
  CoderChoice id;                  ///< written to records: never reused, never renumbered
  std::uint8_t first_version;      ///< of the record
  unsigned least_bits, most_bits;  ///< of the header's code bits
  bool detail;                     ///< the header's detail is a number of symbols less 1
  /// Fits a model and gives a bound that the payload does not stay below, in bits.
  std::uint64_t (*price)(const QuantizedUnit& unit, const CodeCounts& counts, CodedPayload& payload);
  /// Codes with that model; payload.bytes is exact then.
  void (*encode)(const QuantizedUnit& unit, CodedPayload& payload);
  /// Appends payload.bytes bytes and says in the ledger what they are.
  void (*write)(const QuantizedUnit& unit, const CodedPayload& payload, EncodedRecord& into);
  /// The payload of a record, checked but for the codes themselves.
  void (*open)(RecordParts& parts, ByteReader& in);
  /// Makes what all blocks share; before the first `start` of a record, in the thread that decodes it.
  void (*prepare)(const RecordParts& parts, DecodeTables& tables);
  BlockCursor (*start)(const RecordParts& parts, std::size_t block);
  /// Codes at the end of a block that `finish` gives.
  std::size_t (*tail)(const RecordParts& parts, std::size_t block);
  /// The next codes, which begin with code `begin` of the record (a multiple of 8).
  const char* (*fill)(const RecordParts& parts, const DecodeTables& tables, BlockCursor& cursor, std::uint64_t begin,
                      std::span<Code> codes);
  const char* (*finish)(const DecodeTables& tables, BlockCursor& cursor, std::span<Code> tail);
};

#define LMQ_CODER(name, number, whole_bits, coder) extern const Coder coder;
#include "lmq/base/coders.inc"
#undef LMQ_CODER

/// All of them, ascending by id; where several cost the same the first one is taken.
[[nodiscard]] std::span<const Coder* const> coders() noexcept;
/// As recipes call it.
[[nodiscard]] std::string_view name_of(const Coder& coder) noexcept;
/// The coder of that id, or nullptr.
[[nodiscard]] const Coder* find_coder(CoderChoice id) noexcept;

}  // namespace lmq
