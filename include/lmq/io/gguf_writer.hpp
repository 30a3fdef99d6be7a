#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lmq {

/// One tensor of a GGUF file to be written.
struct OutgoingGguf {
  std::string name;                  ///< below 64 bytes
  std::vector<std::uint64_t> shape;  ///< row-major, at most 4 dimensions
  std::uint32_t type = 0;            ///< GGUF's number
  std::uint64_t bytes = 0;
};

/// Keys of a GGUF file with their values, as they lie in it.
class GgufKeys {
 public:
  void add(std::string_view key, std::string_view text);
  void add(std::string_view key, std::uint32_t number);
  /// All keys of another file, arrays too, but those that say how it is stored: general.alignment, general.file_type,
  /// general.quantization_version, split.*. Errors as for reading a GGUF file.
  void copy(const std::filesystem::path& path);
  [[nodiscard]] std::uint64_t count() const noexcept { return count_; }
  [[nodiscard]] const std::vector<std::byte>& bytes() const noexcept { return bytes_; }

 private:
  void put(const void* data, std::size_t bytes);
  void put_text(std::string_view text);
  std::vector<std::byte> bytes_;
  std::uint64_t count_ = 0;
};

/// Names of the tensors of a GGUF file in their order.
[[nodiscard]] std::vector<std::string> gguf_tensor_names(const std::filesystem::path& path);

/// Writes a GGUF file of version 3 with an alignment of 32: keys, tensors in the order given, each one's bytes as `fill`
/// appends them. Written beside `path` and renamed last. Errc::cannot_create, Errc::io; Errc::unsupported for names and
/// shapes that the format cannot hold; Errc::internal when `fill` gives another length.
void write_gguf(
    const std::filesystem::path& path, const GgufKeys& keys, const std::vector<OutgoingGguf>& tensors,
    const std::function<void(std::size_t tensor, const std::function<void(std::span<const std::byte>)>& append)>& fill);

}  // namespace lmq
