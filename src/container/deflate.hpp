#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace lmq {

/// The bytes as a zlib stream (RFC 1950, 1951), which HDF5's deflate filter and every other reader of zlib take. Coded
/// here, because the bytes are part of the file: zlib's own choice of matches differs between its versions and builds.
/// A function of the bytes alone. At most 5 bytes per 64 KiB and 11 more than the bytes. Cost: about 30 ns a byte.
[[nodiscard]] std::vector<std::byte> deflate(std::span<const std::byte> bytes);

/// The reverse, by zlib. The stream ends exactly with `size` bytes; else Errc::malformed, beginning with `source`.
[[nodiscard]] std::vector<std::byte> inflate(std::span<const std::byte> stream, std::uint64_t size,
                                             const std::string& source);

/// The bytes of `values` of `width` bytes each by significance: all first bytes, then all second ones, ... (HDF5's
/// shuffle filter), and back.
[[nodiscard]] std::vector<std::byte> shuffle(std::span<const std::byte> values, std::size_t width);
[[nodiscard]] std::vector<std::byte> unshuffle(std::span<const std::byte> planes, std::size_t width);

}  // namespace lmq
