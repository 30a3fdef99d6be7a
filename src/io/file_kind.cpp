#include "file_kind.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "lmq/base/text.hpp"
#include "lmq/io/input_formats.hpp"
#include "safetensors_header.hpp"

namespace lmq {
namespace {

using namespace std::string_view_literals;

struct Signature {
  std::string_view bytes;
  std::string_view words;
  std::string_view advice;
  std::size_t at = 0;  ///< where the bytes are
  FileKind kind = FileKind::other;
};

constexpr std::string_view kSave = "save its weights as safetensors (safetensors.torch.save_file) and quantize those";
constexpr std::string_view kRepack =
    "torch.save(torch.load(FILE, weights_only=True), NEW) writes it as an archive that is read";
constexpr std::string_view kOriginal = "quantize the safetensors it was made from";
constexpr std::string_view kName = "name the checkpoint itself";
constexpr std::array kSignatures{
    Signature{"\x89HDF\r\n\x1a\n"sv, "an HDF5 file", "save its weights as safetensors and quantize those", 0,
              FileKind::hdf5},
    Signature{"GGUF"sv, "a GGUF file", kOriginal, 0, FileKind::gguf},
    Signature{"PK\x03\x04"sv, "a zip archive (PyTorch .pt/.bin or Keras .keras)", kSave},
    Signature{"\x93NUMPY"sv, "a NumPy array", "save it as safetensors (safetensors.numpy.save_file)"},
    Signature{"\x80\x02"sv, "a Python pickle (an old PyTorch checkpoint)", kRepack},
    Signature{"\x80\x03"sv, "a Python pickle", kRepack},
    Signature{"\x80\x04"sv, "a Python pickle", kRepack},
    Signature{"\x80\x05"sv, "a Python pickle", kRepack},
    Signature{"version https://git-lfs"sv, "a Git LFS pointer (the file itself was not downloaded)",
              "git lfs pull fetches it"},
    Signature{"\x1f\x8b"sv, "a gzip file", "unpack it first"},
    Signature{"\x28\xb5\x2f\xfd"sv, "a zstd file", "unpack it first"},
    Signature{"TFL3"sv, "a TensorFlow Lite model", kOriginal, 4},
    Signature{"<!DOCTYPE"sv, "an HTML page", "the download failed: look into it"},
    Signature{"<html"sv, "an HTML page", "the download failed: look into it"},
    Signature{"<?xml"sv, "an XML text", "the download failed: look into it"},
    Signature{"\xff\xfe"sv, "a text in UTF-16", kName},
    Signature{"\x89PNG"sv, "an image", kName},
    Signature{"%PDF"sv, "a PDF file", kName},
    Signature{"\x7f"
              "ELF"sv,
              "a program", kName},
    Signature{"7z\xbc\xaf"sv, "a 7z archive", "unpack it first"},
    Signature{"ustar"sv, "a tar archive", "unpack it first", 257},
    Signature{"SQLite format 3"sv, "an SQLite database", kName},
    Signature{"PAR1"sv, "a Parquet file", kName},
    Signature{"lmgg"sv, "a GGML file (older than GGUF)", kOriginal},
    Signature{"tjgg"sv, "a GGJT file (older than GGUF)", kOriginal},
};

/// A protocol buffer that begins like every ONNX model: its version, a small number, then the field of a text or the
/// graph.
bool looks_like_onnx(std::string_view text) noexcept {
  return text.size() > 3 && text[0] == 8 && text[1] > 0 && text[1] < 64 &&
         "\x12\x1a\x22\x28\x32\x3a\x42"sv.find(text[2]) != std::string_view::npos;
}

/// Our files name their format in the first object of the file.
bool is_ours(const File& file, std::uint64_t bytes) {
  std::string head(static_cast<std::size_t>(std::min<std::uint64_t>(bytes, 65536)), '\0');
  file.read(0, std::as_writable_bytes(std::span(head)));
  return head.find("lmq_format") != head.npos;
}

/// Words and blanks, no binary data: in UTF-8, which may be cut off at the end, or mostly ASCII.
bool is_text(std::string_view text) noexcept {
  const bool printed = !text.empty() && std::ranges::all_of(text, [](char c) {
    return (static_cast<unsigned char>(c) >= 0x20 && static_cast<unsigned char>(c) < 0xF8) || c == '\t' || c == '\n' ||
           c == '\r';
  });
  if (!printed) return false;
  const auto ascii = std::ranges::count_if(text, [](char c) { return static_cast<unsigned char>(c) < 0x80; });
  if (4 * static_cast<std::size_t>(ascii) >= 3 * text.size()) return true;
  for (std::size_t cut = 0; cut < 4 && cut < text.size(); ++cut)
    if (is_clean_utf8(text.substr(0, text.size() - cut))) return true;
  return false;
}

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

std::string_view kind_of(const File& file) {
  const FileFormat format = recognize(file);
  if (format.is_foreign()) return format.words;
  if (format.kind == FileKind::safetensors) return "a safetensors file";
  return format.kind == FileKind::json ? "a JSON text" : "no kind of file that is known";
}

FileFormat recognize(const File& file) {
  const std::uint64_t bytes = file.size();
  std::array<std::byte, 512> start{};
  const std::size_t count = static_cast<std::size_t>(std::min<std::uint64_t>(bytes, start.size()));
  file.read(0, std::span(start).first(count));
  const std::string_view text(reinterpret_cast<const char*>(start.data()), count);
  // First: a header length may look like another format's signature, but not the other way round.
  std::uint64_t length = 0;
  std::memcpy(&length, start.data(), sizeof length);
  if (count > 8 && text[8] == '{' && length <= kHeaderLimit && length <= bytes - 8) return {FileKind::safetensors, {}};
  if (bytes == 0) return {FileKind::other, "an empty file", "the download failed"};
  for (const Signature& signature : kSignatures) {
    if (count < signature.at || !text.substr(signature.at).starts_with(signature.bytes)) continue;
    if (&signature == &kSignatures[0] && is_ours(file, bytes))
      return {FileKind::other, "an HDF5 file that lmq wrote",
              "it is quantized already; name the original, or what lmq export makes of it"};
    return {signature.kind, signature.words, signature.advice};
  }
  const auto first = text.find_first_not_of(" \t\r\n");
  if (first != text.npos && text[first] == '{') return {FileKind::json, {}};
  if (is_hdf5_with_user_block(file, bytes))
    return {FileKind::other, "an HDF5 file behind a user block", "h5unjam -i FILE -o NEW takes it away"};
  if (looks_like_onnx(text)) return {FileKind::other, "an ONNX model or another protocol buffer", kOriginal};
  if (is_text(text)) return {FileKind::other, "a text file", kName};
  const bool no_length = count > 8 && (length > kHeaderLimit || length > bytes - 8);
  if (no_length && text[8] != '{') return {FileKind::unknown, "no kind of file that is known", kName};
  return {};
}

}  // namespace lmq
