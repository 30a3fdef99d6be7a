#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <optional>

#include "gather.hpp"
#include "inputs.hpp"
#include "lmq/base/bytes.hpp"
#include "lmq/base/digest.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io/placement.hpp"
#include "lmq/io/zip.hpp"
#include "one_file.hpp"
#include "safetensors_header.hpp"

namespace lmq {
namespace {

constexpr std::string_view kMagic{"\x93NUMPY", 6};
constexpr std::uint64_t kMaxHeader = 65536;

/// What the header of an array says.
struct NpyHeader {
  std::string descr;
  bool fortran = false;
  std::vector<std::uint64_t> shape;
  std::uint64_t bytes = 0;  ///< of the header, with its magic
};

/// The dictionary of a header: {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }. Anything else is refused.
class NpyDictionary {
 public:
  NpyDictionary(std::string_view text, std::string source) : text_(text), source_(std::move(source)) {}

  void read(NpyHeader& header) {
    bool descr = false, order = false, shape = false;
    expect('{');
    while (!take('}')) {
      const std::string key = quoted();
      expect(':');
      if (key == "descr" && !descr)
        header.descr = at('\'') || at('"') ? quoted() : structured(), descr = true;
      else if (key == "fortran_order" && !order)
        header.fortran = truth(), order = true;
      else if (key == "shape" && !shape)
        header.shape = tuple(), shape = true;
      else
        refuse(fmt::format("the key '{}'", printable(key)));
      if (!take(',') && !at('}')) refuse("no comma between keys");
    }
    blanks();
    if (at_ != text_.size() || !descr || !order || !shape) refuse("the header has no descr, fortran_order or shape");
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    fail(Errc::malformed, fmt::format("{}: header of the array: {} at character {}", source_, what, at_));
  }
  void blanks() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }
  bool at(char c) { return blanks(), at_ < text_.size() && text_[at_] == c; }
  bool take(char c) { return at(c) && (++at_, true); }
  void expect(char c) {
    if (!take(c)) refuse(fmt::format("expected '{}'", c));
  }
  std::string quoted() {
    const char quote = take('"') ? '"' : (expect('\''), '\'');
    const auto end = text_.find(quote, at_);
    if (end == text_.npos) refuse("a text without an end");
    const std::string value(text_.substr(at_, end - at_));
    at_ = end + 1;
    return value;
  }
  /// A type of fields: walked over to its end, and not read.
  std::string structured() {
    if (!at('[')) refuse("no type");
    int depth = 0;
    do {
      if (at_ == text_.size()) refuse("a list without an end");
      depth += text_[at_] == '[' ? 1 : text_[at_] == ']' ? -1 : 0;
      ++at_;
    } while (depth > 0);
    return "fields";
  }
  bool truth() {
    blanks();
    for (const auto& [word, value] : {std::pair<std::string_view, bool>{"True", true}, {"False", false}})
      if (text_.substr(at_).starts_with(word)) return at_ += word.size(), value;
    refuse("neither True nor False");
  }
  std::vector<std::uint64_t> tuple() {
    std::vector<std::uint64_t> values;
    expect('(');
    while (!take(')')) {
      blanks();
      std::uint64_t value = 0;
      const auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), value);
      if (error != std::errc{}) refuse("no size");
      at_ = static_cast<std::size_t>(end - text_.data());
      if (values.size() == 64) refuse("too many dimensions");
      values.push_back(value);
      if (!take(',') && !at(')')) refuse("no comma between sizes");
    }
    return values;
  }
  std::string_view text_;
  std::string source_;
  std::size_t at_ = 0;
};

NpyHeader parse_header(std::span<const std::byte> start, const std::string& source) {
  ByteReader in(start, source);
  const auto magic = in.raw(kMagic.size(), "magic");
  if (std::memcmp(magic.data(), kMagic.data(), kMagic.size()) != 0) in.refuse("not a NumPy array");
  const auto major = in.le<std::uint8_t>("version"), minor = in.le<std::uint8_t>("version");
  if (major < 1 || major > 3)
    fail(Errc::unsupported, fmt::format("{}: a NumPy array of version {}.{}, expected 1 to 3", source, major, minor));
  const std::uint64_t length = major == 1 ? in.le<std::uint16_t>("length") : in.le<std::uint32_t>("length");
  if (length > kMaxHeader) in.refuse(fmt::format("a header of {} bytes, expected at most {}", length, kMaxHeader));
  const auto text = in.raw(length, "header");
  NpyHeader header;
  NpyDictionary({reinterpret_cast<const char*>(text.data()), text.size()}, source).read(header);
  header.bytes = in.offset();
  return header;
}

struct NpyType {
  std::string_view code;
  DType dtype;
};
constexpr NpyType kTypes[] = {{"f2", DType::f16}, {"f4", DType::f32}, {"f8", DType::f64}, {"b1", DType::boolean},
                              {"i1", DType::i8},  {"u1", DType::u8},  {"i2", DType::i16}, {"u2", DType::u16},
                              {"i4", DType::i32}, {"u4", DType::u32}, {"i8", DType::i64}, {"u8", DType::u64}};

/// Sets type and placement; false for types that are not read.
bool set_type(const std::string& descr, TensorInfo& tensor, Placement& placement) {
  if (descr.size() != 3) return false;
  const auto* const at = std::ranges::find(kTypes, std::string_view(descr).substr(1), &NpyType::code);
  if (at == std::end(kTypes) || std::string_view("<>|=").find(descr[0]) == std::string_view::npos) return false;
  tensor.dtype = at->dtype;
  placement.swapped = descr[0] == '>' && bits(at->dtype) > 8;
  return true;
}

/// Where an array lies: `stored` bytes at `offset` of the file, `size` unpacked, its header included.
struct Place {
  std::uint64_t offset = 0, stored = 0, size = 0;
  bool deflated = false;
};

/// Adds the array to the catalogue; what is no array of numbers gets a warning.
// More than 5 parameters: list and warnings are what it adds to; source is for messages.
void add_array(TensorList& list, std::vector<std::string>& warnings, const std::string& name, const NpyHeader& header,
               const Place& place, const std::string& source) {
  const std::string what = fmt::format("{}: array '{}'", source, printable(name));
  TensorInfo tensor;
  Placement placement;
  tensor.name = name;
  tensor.shape = header.shape;
  if (!set_type(header.descr, tensor, placement)) {
    warnings.push_back(
        fmt::format("{}: of type '{}', no numbers that are read: not taken", what, printable(header.descr)));
    return;
  }
  if (tensor.shape.size() > kRankLimit)
    fail(Errc::unsupported,
         fmt::format("{}: {} dimensions, expected at most {}", what, tensor.shape.size(), kRankLimit));
  std::uint64_t count = 0, bytes = 0;
  if (!count_elements(tensor.shape, count) || !count_bytes(tensor.dtype, count, bytes) ||
      bytes != place.size - header.bytes)
    fail(Errc::malformed, fmt::format("{}: {} bytes of data, not those of its shape", what, place.size - header.bytes));
  if (header.fortran && tensor.shape.size() > 1 && count > 0) {
    placement.strides.resize(tensor.shape.size());
    std::uint64_t stride = 1;
    for (std::size_t d = 0; d < tensor.shape.size(); ++d) placement.strides[d] = stride, stride *= tensor.shape[d];
  }
  tensor.offset = place.offset + header.bytes;
  tensor.bytes = bytes;
  if (place.deflated && count > 0) {
    if (!placement.strides.empty() || tensor.shape.empty() || bytes > kMaxChunkBytes)
      fail(Errc::unsupported,
           fmt::format(
               "{}: {}: numpy.savez(NEW, **{{k: numpy.ascontiguousarray(v) for k, v in numpy.load(FILE).items()}}) "
               "writes it plain",
               what, bytes > kMaxChunkBytes ? "deflated and above 1 GiB" : "deflated, scalar or column by column"));
    tensor.offset = 0;
    placement.chunk = tensor.shape;
    placement.packing = Placement::Packing::deflate;
    placement.lead = header.bytes;
    placement.pieces = {{place.offset, place.stored}};
    tensor.bytes = place.stored;
  }
  list.add(std::move(tensor), std::move(placement));
}

std::vector<std::byte> start_of(const File& file, std::uint64_t offset, std::uint64_t bytes) {
  std::vector<std::byte> start(static_cast<std::size_t>(std::min<std::uint64_t>(bytes, kMaxHeader)));
  file.read(offset, start);
  return start;
}

}  // namespace

bool is_npy(const File& file) {
  std::array<char, kMagic.size()> start{};
  if (file.size() < start.size()) return false;
  file.read(0, std::as_writable_bytes(std::span(start)));
  return std::string_view(start.data(), start.size()) == kMagic;
}

Catalogue read_npy(const std::filesystem::path& path) {
  const File file(path, File::Mode::read);
  const std::string source = printable(path.native());
  const auto start = start_of(file, 0, file.size());
  const NpyHeader header = parse_header(start, source);
  TensorList list;
  Catalogue catalogue = folder_catalogue(path, "NumPy array");
  add_shard(catalogue, file, digest128_hex(std::span(start).first(static_cast<std::size_t>(header.bytes))));
  add_array(list, catalogue.warnings, path.stem().native(), header, {0, file.size(), file.size(), false}, source);
  list.give(catalogue, source);
  return catalogue;
}

bool is_npz(const File& file) {
  if (!is_zip(file)) return false;
  try {
    const auto entries = read_zip(file);
    return !entries.empty() &&
           std::ranges::all_of(entries, [](const ZipEntry& entry) { return entry.name.ends_with(".npy"); });
  } catch (const Error&) {
    return false;  // it is said what is wrong where the archive is read
  }
}

Catalogue read_npz(const std::filesystem::path& path) {
  const File file(path, File::Mode::read);
  const std::string source = printable(path.native());
  const auto entries = read_zip(file);
  TensorList list;
  Catalogue catalogue = folder_catalogue(path, "NumPy archive");
  add_shard(catalogue, file, zip_digest(entries));
  for (const ZipEntry& entry : entries) {
    const std::string what = fmt::format("{}, member '{}'", source, printable(entry.name));
    std::vector<std::byte> start = start_of(file, entry.offset, entry.bytes);
    if (entry.deflated) {
      std::vector<std::byte> unpacked(static_cast<std::size_t>(std::min(entry.size, kMaxHeader)));
      unpack_start(start, unpacked);
      start = std::move(unpacked);
    }
    const NpyHeader header = parse_header(start, what);
    if (header.bytes > entry.size) fail(Errc::malformed, what + ": the header is longer than the member");
    add_array(list, catalogue.warnings, entry.name.substr(0, entry.name.size() - 4), header,
              {entry.offset, entry.bytes, entry.size, entry.deflated}, source);
  }
  list.give(catalogue, source);
  return catalogue;
}

}  // namespace lmq
