#include <fmt/format.h>
#include <zlib.h>

#include "deflate.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/math.hpp"

namespace lmq {

std::vector<std::byte> inflate(std::span<const std::byte> stream, std::uint64_t size, const std::string& source) {
  // A deflate stream grows by at most 1032 times: a size beyond that cannot be right and is not allocated.
  if (size / 1032 > stream.size())
    fail(Errc::malformed, fmt::format("{}: {} bytes cannot come from {} deflated ones", source, size, stream.size()));
  std::vector<std::byte> bytes(static_cast<std::size_t>(size));
  uLongf length = narrow<uLongf>(size, "bytes");
  uLong taken = narrow<uLong>(stream.size(), "deflated bytes");
  const int result = ::uncompress2(reinterpret_cast<Bytef*>(bytes.data()), &length,
                                   reinterpret_cast<const Bytef*>(stream.data()), &taken);
  if (result != Z_OK || length != size || taken != stream.size())
    fail(Errc::malformed, fmt::format("{}: the deflated bytes are damaged", source));
  return bytes;
}

}  // namespace lmq
