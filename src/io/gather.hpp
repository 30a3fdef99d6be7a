#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "lmq/base/tensor.hpp"
#include "lmq/io/placement.hpp"

namespace lmq {

/// Bytes of a decoded chunk, at most; larger ones are refused when the catalogue is made.
inline constexpr std::uint64_t kMaxChunkBytes = std::uint64_t{1} << 30;

/// `stored` unpacked into `bytes` exactly: a deflate stream (bare, or zlib's) or LZF. False when it is damaged or gives
/// another number of bytes; nothing is allocated. Cost: about 4 ns a byte.
[[nodiscard]] bool unpack(Placement::Packing packing, std::span<const std::byte> stored, std::span<std::byte> bytes);

/// The beginning of a bare deflate stream, as much of `bytes` as `stored` gives; the rest is set to 0.
void unpack_start(std::span<const std::byte> stored, std::span<std::byte> bytes);

/// Elements of tensors that do not lie in one row. Thread-safe; keeps the chunk that was unpacked last, for the next
/// range of the same tensor.
class Gatherer {
 public:
  using ReadBytes = std::function<void(std::uint64_t offset, std::span<std::byte> bytes)>;
  /// Elements [begin, begin + out.size() / width) in row-major order, little-endian. Errc::malformed says which chunk is
  /// damaged; `source` names file and tensor. Memory: the chunk in hand, or at most 4 bytes for each byte of `out`.
  void read(const TensorInfo& tensor, const Placement& placement, std::uint64_t begin, std::span<std::byte> out,
            const ReadBytes& read_bytes, const std::string& source);

 private:
  using Chunk = std::shared_ptr<const std::vector<std::byte>>;
  [[nodiscard]] Chunk chunk(const TensorInfo& tensor, const Placement& placement, std::uint64_t index,
                            const ReadBytes& read_bytes, const std::string& source);
  void read_chunks(const TensorInfo& tensor, const Placement& placement, std::uint64_t begin, std::span<std::byte> out,
                   const ReadBytes& read_bytes, const std::string& source);
  std::mutex mutex_;
  Chunk last_;
  std::uint64_t last_offset_ = ~std::uint64_t{0};  ///< of the stored chunk in its file
  std::uint32_t last_shard_ = 0;
};

}  // namespace lmq
