#pragma once
#include <zlib.h>

#include <catch2/catch.hpp>
#include <cstddef>
#include <span>
#include <string>

namespace lmq::test {

/// What zlib makes of a stream; `size` bytes are expected.
inline std::string inflated(std::span<const std::byte> stream, std::size_t size) {
  std::string text(size, '\0');
  uLongf length = size;
  uLong taken = stream.size();
  const int result = uncompress2(reinterpret_cast<Bytef*>(text.data()), &length,
                                 reinterpret_cast<const Bytef*>(stream.data()), &taken);
  CAPTURE(result, length, size, taken, stream.size());
  REQUIRE(result == Z_OK);
  REQUIRE(length == size);
  REQUIRE(taken == stream.size());
  return text;
}

}  // namespace lmq::test
