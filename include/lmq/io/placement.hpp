#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lmq/io/reader.hpp"

namespace lmq {

/// How the values of a tensor lie in its file where they are not one row of little-endian values of its type.
struct Placement {
  /// Values travel between ranks: never renumbered. deflate is a bare stream, zlib one with header and checksum.
  enum class Packing : std::uint8_t { none = 0, deflate = 1, zlib = 2, lzf = 3 };
  struct Piece {
    std::uint64_t offset = 0, bytes = 0;  ///< in the file; bytes 0: never written, all its elements are 0
    friend bool operator==(const Piece&, const Piece&) = default;
  };
  std::uint32_t block_type = 0;        ///< GGUF's number of the blocks that stand for F32 values; 0: none
  bool swapped = false;                ///< big-endian elements
  std::vector<std::uint64_t> strides;  ///< [rank] in elements; empty: a row, or chunks
  std::vector<std::uint64_t> chunk;    ///< [rank] elements of one chunk, each way; empty: no chunks
  bool shuffled = false;               ///< the first bytes of all elements of a chunk, then the second, ...
  bool summed = false;                 ///< four bytes of Fletcher's checksum follow each chunk
  Packing packing = Packing::none;     ///< of each chunk
  std::uint64_t lead = 0;              ///< bytes of each unpacked chunk before its first element
  std::vector<Piece> pieces;           ///< [chunks], row-major
  friend bool operator==(const Placement&, const Placement&) = default;
};

struct Placements {
  std::vector<std::pair<std::uint32_t, Placement>> list;  ///< ascending by tensor
};

/// The placement of that tensor of the catalogue, or nullptr. Cost: O(log(placements)).
[[nodiscard]] const Placement* placement_of(const Catalogue& catalogue, std::size_t tensor) noexcept;

/// How the tensor is stored, for people: "Q4_0", "F32", "F32 big-endian".
[[nodiscard]] std::string stored_type(const Catalogue& catalogue, std::size_t tensor);

/// Empty when values so placed can be read: lists have the tensor's rank, every byte lies in the file of `file_bytes`
/// bytes, `bytes` is right, chunks have at most 1 GiB. Else what is wrong.
[[nodiscard]] std::string placement_fault(const TensorInfo& tensor, const Placement& placement,
                                          std::uint64_t file_bytes);
/// Bytes of the tensor in the file: from its first element to its last, its blocks, or all chunks. Saturates.
[[nodiscard]] std::uint64_t placed_bytes(const TensorInfo& tensor, const Placement& placement);

/// Tensors with their placements, on the way to a catalogue.
class TensorList {
 public:
  /// A placement that says nothing is none.
  void add(TensorInfo tensor, Placement placement = {}) { list_.emplace_back(std::move(tensor), std::move(placement)); }
  [[nodiscard]] std::size_t size() const noexcept { return list_.size(); }
  /// Tensors ascending by name, into the catalogue. Errc::malformed when a name is there twice, is no clean UTF-8, or is
  /// too long, and for placements that cannot be read; `source` names the file.
  void give(Catalogue& catalogue, const std::string& source);

 private:
  std::vector<std::pair<TensorInfo, Placement>> list_;
};

}  // namespace lmq
