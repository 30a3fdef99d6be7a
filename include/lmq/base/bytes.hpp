#pragma once
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "lmq/base/error.hpp"

static_assert(std::endian::native == std::endian::little, "lmq reads and writes little-endian fields in place");

namespace lmq {

template <class T>
concept Scalar = std::is_arithmetic_v<T>;

/// Appends little-endian fields to a growing buffer.
class ByteWriter {
 public:
  template <Scalar T>
  void le(T value) {
    raw(std::as_bytes(std::span(&value, 1)));
  }
  void raw(std::span<const std::byte> bytes) { buffer_.insert(buffer_.end(), bytes.begin(), bytes.end()); }
  template <Scalar T>
  void array(std::span<const T> values) {
    raw(std::as_bytes(values));
  }
  /// u32 length, then the bytes.
  void text(std::string_view value) {
    le(static_cast<std::uint32_t>(value.size())), raw(std::as_bytes(std::span(value)));
  }
  [[nodiscard]] std::size_t size() const noexcept { return buffer_.size(); }
  [[nodiscard]] std::vector<std::byte> take() noexcept { return std::move(buffer_); }
  [[nodiscard]] const std::vector<std::byte>& bytes() const noexcept { return buffer_; }

 private:
  std::vector<std::byte> buffer_;
};

/// Takes little-endian fields from a buffer that came from outside; every step is checked.
/// A short buffer is Errc::malformed with the source's name, the byte and the field.
class ByteReader {
 public:
  ByteReader(std::span<const std::byte> bytes, std::string source) : bytes_(bytes), source_(std::move(source)) {}
  template <Scalar T>
  [[nodiscard]] T le(std::string_view field) {
    T value;
    std::memcpy(&value, raw(sizeof(T), field).data(), sizeof(T));
    return value;
  }
  /// The next `count` bytes; the count is compared with what is left before anything else happens.
  [[nodiscard]] std::span<const std::byte> raw(std::uint64_t count, std::string_view field);
  /// `count` values; refused before allocation when they cannot be there.
  template <Scalar T>
  [[nodiscard]] std::vector<T> array(std::uint64_t count, std::string_view field) {
    if (count > left() / sizeof(T)) short_of(count, sizeof(T), field);
    const auto bytes = raw(count * sizeof(T), field);
    std::vector<T> values(static_cast<std::size_t>(count));
    if (count > 0) std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }
  [[nodiscard]] std::string text(std::string_view field);
  [[nodiscard]] std::size_t offset() const noexcept { return offset_; }
  [[nodiscard]] std::size_t left() const noexcept { return bytes_.size() - offset_; }
  /// Errc::malformed at the current byte.
  [[noreturn]] void refuse(const std::string& what) const;

 private:
  [[noreturn]] void short_of(std::uint64_t count, std::size_t size, std::string_view field) const;
  std::span<const std::byte> bytes_;
  std::string source_;
  std::size_t offset_ = 0;
};

}  // namespace lmq
