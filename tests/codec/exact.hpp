#pragma once
#include <cstddef>
#include <cstring>
#include <memory>
#include <span>

/// A copy in memory of exactly its size, so that sanitizers see every byte read too far.
struct Exact {
  explicit Exact(std::span<const std::byte> from) : size(from.size()), bytes(new std::byte[from.size()]) {
    if (size > 0) std::memcpy(bytes.get(), from.data(), size);
  }
  [[nodiscard]] std::span<const std::byte> view() const { return {bytes.get(), size}; }
  std::size_t size;
  std::unique_ptr<std::byte[]> bytes;
};
