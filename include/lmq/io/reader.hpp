#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lmq/base/tensor.hpp"
#include "lmq/base/tensor_note.hpp"

namespace lmq {

struct ShardInfo {
  std::string name;              ///< plain file name, relative to Catalogue::folder
  std::uint64_t bytes = 0;       ///< size of the file
  std::int64_t modified_ns = 0;  ///< modification time, to notice a change before the commit; not part of any digest
  std::string header_digest;     ///< digest128_hex of the header (length field and JSON)
  std::map<std::string, std::string> metadata = {};  ///< "__metadata__"
};

struct InputFormat;
struct Placements;

/// What a checkpoint holds, from its headers alone.
struct Catalogue {
  std::string format;            ///< "safetensors", "GGUF", ...: a name of the table of formats
  std::filesystem::path folder;  ///< where the shards are (absolute)
  std::string index_name = {};   ///< file name of the index that names the shards; empty: none
  std::vector<ShardInfo> shards;
  std::vector<TensorInfo> tensors;              ///< ascending by name (bytes)
  std::map<std::string, std::string> metadata;  ///< "__metadata__" of the first shard
  /// Of tensors whose values do not lie in a row as their type has them (io/placement.hpp); none: null. Never changed
  /// once made, so copies of the catalogue share it.
  std::shared_ptr<const Placements> placements;
  std::vector<TensorNote> notes;      ///< what cannot be quantized like others; ascending by tensor
  std::vector<std::string> warnings;  ///< one line each: total_size wrong, unmapped tensors, ...

  /// For another rank. The bytes are a function of the catalogue, and from_bytes gives an equal one.
  [[nodiscard]] std::vector<std::byte> to_bytes() const;
  /// Every rule that the reader relies on is checked again. Errc::malformed.
  [[nodiscard]] static Catalogue from_bytes(std::span<const std::byte> bytes);
  /// Index of the tensor of that name, or -1. Cost: O(log(tensors)).
  [[nodiscard]] std::int64_t find(std::string_view name) const noexcept;
};

/// Range reads of a checkpoint's tensors. Thread-safe.
class Reader {
 public:
  virtual ~Reader() = default;
  [[nodiscard]] virtual const Catalogue& catalogue() const noexcept = 0;
  /// Elements [begin, begin + count) of a tensor as tensor.value_type(): the bytes as they lie in the file, or floats
  /// with the block scales applied (each value * scale, rounded to float), or the floats that GGUF's blocks stand for,
  /// or elements gathered from where a placement has them. Only these bytes (their scales, the blocks and chunks they
  /// lie in) are read, with positioned reads, into `scratch`, which never shrinks and may be longer than the view.
  /// Errc::io names file, tensor and byte; Errc::malformed names the scale that is not finite and positive, the chunk
  /// that does not unpack. For sub-byte types begin and count must address whole bytes.
  [[nodiscard]] virtual TensorView view(const TensorInfo& tensor, std::uint64_t begin, std::uint64_t count,
                                        std::vector<std::byte>& scratch) const = 0;
  /// Tells the system that this range will be wanted soon. Never fails.
  virtual void prefetch(const TensorInfo& tensor, std::uint64_t begin, std::uint64_t count) const noexcept = 0;
  /// Errc::io when a shard's size or modification time is no longer that of the catalogue.
  virtual void check_unchanged() const = 0;
};

/// Opens a .safetensors file, a folder of shards, an index.json, or a file of another format of the table or of `more`,
/// told apart by content (io/input_formats.hpp). A folder without safetensors is the one file (or numbered set) of another format that lies in
/// it. Only headers are read, and config.json where 8-bit floats need it. Errc::missing, Errc::malformed,
/// Errc::unsupported as the case may be; Errc::usage when a folder holds several checkpoints.
[[nodiscard]] std::unique_ptr<Reader> open_reader(const std::filesystem::path& input,
                                                  std::span<const InputFormat> more = {});
/// The same checkpoint on another rank: shards are opened when first touched.
[[nodiscard]] std::unique_ptr<Reader> open_reader(Catalogue catalogue);

}  // namespace lmq
