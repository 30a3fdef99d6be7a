#include "file_kind.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

#include "safetensors_header.hpp"

namespace lmq {
namespace {

using namespace std::string_view_literals;

struct Signature {
  std::string_view bytes;
  std::string_view words;
};
constexpr std::array kSignatures{
    Signature{"\x89HDF\r\n\x1a\n"sv, "an HDF5 file"},
    Signature{"GGUF"sv, "a GGUF file"},
    Signature{"PK\x03\x04"sv, "a zip archive (PyTorch .pt/.bin or Keras .keras)"},
    Signature{"\x93NUMPY"sv, "a NumPy array"},
    Signature{"\x80\x02"sv, "a Python pickle (an old PyTorch checkpoint)"},
    Signature{"\x80\x03"sv, "a Python pickle"},
    Signature{"\x80\x04"sv, "a Python pickle"},
    Signature{"\x80\x05"sv, "a Python pickle"},
    Signature{"version https://git-lfs"sv, "a Git LFS pointer (the file itself was not downloaded)"},
    Signature{"\x1f\x8b"sv, "a gzip file"},
    Signature{"\x28\xb5\x2f\xfd"sv, "a zstd file"},
};

/// Behind a user block of 512, 1024, ... bytes an HDF5 file begins later.
bool is_hdf5_with_user_block(const File& file, std::uint64_t bytes) {
  std::array<std::byte, 8> start{};
  for (std::uint64_t at = 512; at <= 65536 && at + start.size() <= bytes; at *= 2) {
    file.read(at, start);
    if (std::memcmp(start.data(), kSignatures[0].bytes.data(), start.size()) == 0) return true;
  }
  return false;
}

}  // namespace

FileNature recognize(const File& file) {
  const std::uint64_t bytes = file.size();
  std::array<std::byte, 64> start{};
  const std::size_t count = static_cast<std::size_t>(std::min<std::uint64_t>(bytes, start.size()));
  file.read(0, std::span(start).first(count));
  const std::string_view text(reinterpret_cast<const char*>(start.data()), count);
  // First: a header length may look like another format's signature, but not the other way round.
  std::uint64_t length = 0;
  std::memcpy(&length, start.data(), sizeof length);
  if (count > 8 && text[8] == '{' && length <= kHeaderLimit && length <= bytes - 8) return {FileKind::safetensors, {}};
  for (const Signature& signature : kSignatures)
    if (text.starts_with(signature.bytes)) return {FileKind::other, signature.words};
  const auto first = text.find_first_not_of(" \t\r\n");
  if (first != text.npos && text[first] == '{') return {FileKind::json, {}};
  if (is_hdf5_with_user_block(file, bytes)) return {FileKind::other, kSignatures[0].words};
  return {};
}

}  // namespace lmq
