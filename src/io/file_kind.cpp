#include "file_kind.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
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
constexpr std::string_view kUnpack = "unpack it first";
constexpr std::string_view kShortText =
    "look into it: a download that failed leaves such; else name the checkpoint itself";
constexpr std::string_view kDownload = "the download failed: look into it";
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
    Signature{"# xet version"sv, "a Xet pointer (the file itself was not downloaded)",
              "git xet or hf download fetches it"},
    Signature{"\x1f\x8b"sv, "a gzip file", kUnpack},
    Signature{"\x28\xb5\x2f\xfd"sv, "a zstd file", kUnpack},
    Signature{"BZh"sv, "a bzip2 file", kUnpack},
    Signature{"\xfd\x37zXZ"sv, "an xz file", kUnpack},
    Signature{"Rar!"sv, "a RAR archive", kUnpack},
    Signature{"7z\xbc\xaf"sv, "a 7z archive", kUnpack},
    Signature{"ustar"sv, "a tar archive", kUnpack, 257},
    Signature{"TFL3"sv, "a TensorFlow Lite model", kOriginal, 4},
    Signature{"ftrt"sv, "a TensorRT engine", kOriginal},
    Signature{"ptrt"sv, "a TensorRT engine", kOriginal},
    Signature{"\xff\xfe"sv, "a text in UTF-16", kName},
    Signature{"\x89PNG"sv, "an image", kName},
    Signature{"%PDF"sv, "a PDF file", kName},
    Signature{"\x7f"
              "ELF"sv,
              "a program", kName},
    Signature{"SQLite format 3"sv, "an SQLite database", kName},
    Signature{"PAR1"sv, "a Parquet file", kName},
    Signature{"MATLAB 5.0 MAT-file"sv, "a MATLAB file", "save its weights as safetensors or NumPy arrays (.npz)"},
    Signature{"lmgg"sv, "a GGML file (older than GGUF)", kOriginal},
    Signature{"fmgg"sv, "a GGMF file (older than GGUF)", kOriginal},
    Signature{"tjgg"sv, "a GGJT file (older than GGUF)", kOriginal},
    Signature{"algg"sv, "a GGLA adapter (older than GGUF)", kOriginal},
};

/// What texts of the web begin with, in whatever letters.
struct Markup {
  std::string_view start, words, advice;
};
constexpr std::array kMarkups{
    Markup{"<!doctype", "an HTML page", kDownload},
    Markup{"<html", "an HTML page", kDownload},
    Markup{"<?xml", "an XML text", kDownload},
    Markup{"<net ", "a description of an OpenVINO model", kOriginal},
};
const Markup* markup_of(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of("\xef\xbb\xbf \t\r\n"), text.size()));
  const auto same = [](char letter, char found) {
    return letter == (found >= 'A' && found <= 'Z' ? static_cast<char>(found - 'A' + 'a') : found);
  };
  for (const Markup& one : kMarkups)
    if (text.size() >= one.start.size() && std::ranges::equal(one.start, text.substr(0, one.start.size()), same))
      return &one;
  return nullptr;
}

/// The number and the bytes of a protocol buffer's fields, as far as they lie in the text.
class Fields {
 public:
  explicit Fields(std::string_view text) : text_(text) {}
  /// The value of a number (kind 0) or the length of bytes (kind 2) of that field, or nothing when another thing comes.
  std::optional<std::uint64_t> next(unsigned field, unsigned kind) {
    if (text_.empty() || static_cast<unsigned char>(text_[0]) != (field << 3 | kind)) return std::nullopt;
    std::uint64_t value = 0;
    for (std::size_t i = 1; i < std::min<std::size_t>(text_.size(), 10); ++i) {
      const auto byte = static_cast<unsigned char>(text_[i]);
      value |= std::uint64_t{byte & 0x7Fu} << (7 * (i - 1));
      if (byte >= 0x80) continue;
      text_.remove_prefix(i + 1);
      return value;
    }
    return std::nullopt;
  }
  [[nodiscard]] std::string_view rest() const noexcept { return text_; }
  void skip(std::uint64_t bytes) {
    text_.remove_prefix(static_cast<std::size_t>(std::min<std::uint64_t>(bytes, text_.size())));
  }

 private:
  std::string_view text_;
};

/// Models that are protocol buffers have no signature; their first fields tell them.
std::string_view protocol_buffer(std::string_view text) {
  Fields graph(text);  // GraphDef: nodes, each with a name and an operation
  if (graph.next(1, 2)) {
    const auto name = graph.next(1, 2);
    if (!name || *name == 0 || *name > 200) return {};
    graph.skip(*name);
    return graph.next(2, 2) ? "a frozen TensorFlow graph" : std::string_view{};
  }
  Fields model(text);
  const auto version = model.next(1, 0);
  if (!version || *version == 0 || *version > 63) return {};
  Fields second = model;
  if (const auto bytes = second.next(2, 2)) {
    // A text (the producer's name) in ONNX, the graphs of a SavedModel (version 1), a description in Core ML.
    if (*version == 1) return "a TensorFlow SavedModel";
    return second.rest().starts_with('\x0a') ? "a Core ML model" : "an ONNX model";
  }
  for (const unsigned field : {3u, 4u, 6u, 7u, 8u})
    if (Fields other = model; other.next(field, 2)) return "an ONNX model";
  return Fields(model).next(5, 0) ? "an ONNX model" : std::string_view{};
}

/// MessagePack begins with a map whose first key is a text: how Flax saves.
bool looks_like_msgpack(std::string_view text) noexcept {
  if (text.size() < 4) return false;
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const std::size_t key = byte(0) > 0x80 && byte(0) < 0x90 ? 1 : byte(0) == 0xDE ? 3 : 0;
  if (key == 0 || key + 2 > text.size()) return false;
  const std::size_t length = byte(key) & 0x1Fu;
  return byte(key) > 0xA0 && byte(key) < 0xC0 && key + 1 + length < text.size() &&
         std::ranges::all_of(text.substr(key + 1, length), [](char c) { return c > 0x20 && c < 0x7F; });
}

/// The end of the index of a TensorFlow checkpoint (a table of LevelDB).
bool is_tensorflow_index(const File& file, std::uint64_t bytes) {
  constexpr std::string_view kEnd = "\x57\xfb\x80\x8b\x24\x75\x47\xdb"sv;
  std::array<char, kEnd.size()> end{};
  if (bytes < end.size()) return false;
  file.read(bytes - end.size(), std::as_writable_bytes(std::span(end)));
  return std::string_view(end.data(), end.size()) == kEnd;
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
  if (const std::string_view model = protocol_buffer(text); !model.empty()) return {FileKind::other, model, kOriginal};
  if (const Markup* const markup = markup_of(text)) return {FileKind::other, markup->words, markup->advice};
  if (is_text(text)) return {FileKind::other, "a text file", bytes < 128 ? kShortText : kName};
  if (looks_like_msgpack(text))
    return {FileKind::other, "MessagePack (a Flax checkpoint)",
            "save its weights as safetensors (safetensors.flax.save_file)"};
  if (is_tensorflow_index(file, bytes))
    return {FileKind::other, "the index of a TensorFlow checkpoint", "save its weights as safetensors or .h5"};
  const bool no_length = count > 8 && (length > kHeaderLimit || length > bytes - 8);
  if (no_length && text[8] != '{') return {FileKind::unknown, "no kind of file that is known", kName};
  return {};
}

}  // namespace lmq
