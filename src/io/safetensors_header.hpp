#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "lmq/base/tensor.hpp"
#include "lmq/io/file.hpp"

namespace lmq {

/// Limits of what is read: those of the format, and of this program.
inline constexpr std::uint64_t kHeaderLimit = 100'000'000;  ///< bytes of JSON
inline constexpr std::size_t kRankLimit = 8;                ///< dimensions
inline constexpr std::size_t kNameLimit = 4096;             ///< bytes of a tensor's name

/// What the header of one safetensors file says, every rule checked.
struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;              ///< ascending by name; offsets count from the start of the file
  std::map<std::string, std::string> metadata;  ///< "__metadata__"
  std::string digest;                           ///< digest128_hex of length field and JSON
};

/// Bytes of the JSON text, from the first 8 bytes of a file of `file_bytes` bytes. Errc::malformed.
[[nodiscard]] std::uint64_t safetensors_header_bytes(std::span<const std::byte> prefix, std::uint64_t file_bytes,
                                                     const std::string& source);
/// Parses a header: `head` is the length field and the JSON text, `file_bytes` the size of the whole file.
/// The ranges of the tensors then tile the bytes behind the header exactly: no hole, no overlap, no tail.
/// Errc::malformed with file, tensor, field, found and expected; Errc::unsupported for dtypes and fields we do not
/// know. Cost: one pass over the text, O(tensors * log(tensors)).
[[nodiscard]] SafetensorsHeader parse_safetensors_header(std::span<const std::byte> head, std::uint64_t file_bytes,
                                                         const std::string& source);
/// The same from a file; `source` is its path.
[[nodiscard]] SafetensorsHeader read_safetensors_header(const File& file, std::uint64_t file_bytes);

/// Elements of a shape: the product, in which zeros are left aside when it is tested for overflow, so that a partial
/// product fits as well. False when it exceeds 2^63 - 1.
[[nodiscard]] bool count_elements(std::span<const std::uint64_t> shape, std::uint64_t& count) noexcept;
/// Bytes of so many elements. False when it is no whole number or exceeds 2^63 - 1.
[[nodiscard]] bool count_bytes(DType dtype, std::uint64_t count, std::uint64_t& bytes) noexcept;

}  // namespace lmq
