#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lmq/io/file.hpp"

namespace lmq {

/// Takes little-endian fields from a file from its start on, through a small buffer. Every count is compared with the
/// bytes left before anything is allocated. Errc::malformed names file, byte and field.
class FileCursor {
 public:
  explicit FileCursor(const File& file) : file_(file), size_(file.size()) {}
  template <class T>
  [[nodiscard]] T le(std::string_view field) {
    std::byte bytes[sizeof(T)];
    take(bytes, field);
    T value;
    std::memcpy(&value, bytes, sizeof(T));
    return value;
  }
  [[nodiscard]] std::string text(std::uint64_t bytes, std::uint64_t most, std::string_view field);
  /// Passes over `count` things of `size` bytes.
  void skip(std::uint64_t count, std::uint64_t size, std::string_view field);
  [[nodiscard]] std::uint64_t offset() const noexcept { return offset_; }
  [[nodiscard]] std::uint64_t left() const noexcept { return size_ - offset_; }
  [[nodiscard]] std::uint64_t file_bytes() const noexcept { return size_; }
  [[noreturn]] void refuse(const std::string& what) const;

 private:
  void take(std::span<std::byte> bytes, std::string_view field);
  static constexpr std::size_t kBuffer = std::size_t{64} << 10;
  const File& file_;
  std::uint64_t size_ = 0, offset_ = 0;
  std::vector<std::byte> buffer_;
  std::uint64_t buffer_begin_ = 0;
};

}  // namespace lmq
