#include <zlib.h>

#include <algorithm>
#include <cstring>

#include "gather.hpp"

namespace lmq {
namespace {

/// windowBits: -15 for a bare stream, 15 for one with header and checksum.
bool inflate_all(std::span<const std::byte> stored, std::span<std::byte> bytes, int window_bits) {
  constexpr std::size_t kStep = std::size_t{1} << 30;  // zlib counts in 32 bits
  z_stream stream{};
  if (inflateInit2(&stream, window_bits) != Z_OK) return false;
  std::size_t taken = 0, given = 0;
  int state = Z_OK;
  while (state == Z_OK || state == Z_BUF_ERROR) {
    const std::size_t in = std::min(kStep, stored.size() - taken), out = std::min(kStep, bytes.size() - given);
    // zlib does not write through next_in.
    stream.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(stored.data() + taken));
    stream.avail_in = static_cast<uInt>(in);
    stream.next_out = reinterpret_cast<Bytef*>(bytes.data() + given);
    stream.avail_out = static_cast<uInt>(out);
    state = ::inflate(&stream, Z_NO_FLUSH);
    const std::size_t read = in - stream.avail_in, written = out - stream.avail_out;
    taken += read, given += written;
    if (read == 0 && written == 0) break;
  }
  inflateEnd(&stream);
  return state == Z_STREAM_END && taken == stored.size() && given == bytes.size();
}

/// LZF: a byte below 32 is followed by so many literals and one more; else it begins a copy of 3 to 264 bytes from up to
/// 8192 bytes back.
bool unpack_lzf(std::span<const std::byte> stored, std::span<std::byte> bytes) {
  const auto* in = reinterpret_cast<const std::uint8_t*>(stored.data());
  auto* out = reinterpret_cast<std::uint8_t*>(bytes.data());
  std::size_t at = 0, done = 0;
  while (at < stored.size()) {
    const std::size_t control = in[at++];
    if (control < 32) {
      const std::size_t count = control + 1;
      if (count > stored.size() - at || count > bytes.size() - done) return false;
      std::memcpy(out + done, in + at, count);
      at += count, done += count;
      continue;
    }
    std::size_t count = control >> 5;
    if (count == 7) {
      if (at == stored.size()) return false;
      count += in[at++];
    }
    count += 2;
    if (at == stored.size()) return false;
    const std::size_t back = ((control & 31) << 8 | in[at++]) + 1;
    if (back > done || count > bytes.size() - done) return false;
    for (std::size_t i = 0; i < count; ++i, ++done) out[done] = out[done - back];  // may overlap itself
  }
  return done == bytes.size();
}

}  // namespace

void unpack_start(std::span<const std::byte> stored, std::span<std::byte> bytes) {
  std::ranges::fill(bytes, std::byte{0});
  static_cast<void>(inflate_all(stored, bytes, -15));
}

bool unpack(Placement::Packing packing, std::span<const std::byte> stored, std::span<std::byte> bytes) {
  switch (packing) {
    case Placement::Packing::deflate:
      return inflate_all(stored, bytes, -15);
    case Placement::Packing::zlib:
      return inflate_all(stored, bytes, 15);
    case Placement::Packing::lzf:
      return unpack_lzf(stored, bytes);
    case Placement::Packing::none:
      break;
  }
  if (stored.size() != bytes.size()) return false;
  std::ranges::copy(stored, bytes.begin());
  return true;
}

}  // namespace lmq
