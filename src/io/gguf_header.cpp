#include "gguf_header.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>
#include <utility>

#include "file_cursor.hpp"
#include "gguf_blocks.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/math.hpp"
#include "lmq/base/text.hpp"
#include "safetensors_header.hpp"

namespace lmq {
namespace {

constexpr std::uint64_t kLongestKey = 65535, kLongestName = 1024, kLongestText = std::uint64_t{1} << 24;
constexpr std::uint64_t kMaxAlignment = 65536, kMaxBytes = std::uint64_t{1} << 62;
constexpr std::uint32_t kBool = 7, kString = 8, kArray = 9, kTypes = 13;
// Bytes of a value by type; 0: not of fixed size.
constexpr std::array<std::uint64_t, kTypes> kValueBytes{1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

void skip_array(FileCursor& in, const std::string& key) {
  const auto type = in.le<std::uint32_t>("type of an array's elements");
  const auto count = in.le<std::uint64_t>("length of an array");
  if (type >= kTypes || type == kArray)
    in.refuse(fmt::format("key '{}': an array of type {}, expected 0..8 or 10..12", printable(key), type));
  if (type != kString) return in.skip(count, kValueBytes[type], "array");
  if (count > in.left() / sizeof(std::uint64_t))
    in.refuse(
        fmt::format("key '{}': an array of {} texts, the file has {} bytes more", printable(key), count, in.left()));
  for (std::uint64_t i = 0; i < count; ++i) in.skip(in.le<std::uint64_t>("length of a text"), 1, "text");
}

GgufHeader::Value number_value(FileCursor& in, std::uint32_t type, const std::string& key) {
  switch (type) {
    case 0:
      return std::uint64_t{in.le<std::uint8_t>("value")};
    case 1:
      return std::int64_t{in.le<std::int8_t>("value")};
    case 2:
      return std::uint64_t{in.le<std::uint16_t>("value")};
    case 3:
      return std::int64_t{in.le<std::int16_t>("value")};
    case 4:
      return std::uint64_t{in.le<std::uint32_t>("value")};
    case 5:
      return std::int64_t{in.le<std::int32_t>("value")};
    case 6:
      return double{in.le<float>("value")};
    case kBool: {
      const auto truth = in.le<std::uint8_t>("value");
      if (truth > 1) in.refuse(fmt::format("key '{}': a truth value that is neither 0 nor 1", printable(key)));
      return truth == 1;
    }
    case 10:
      return in.le<std::uint64_t>("value");
    case 11:
      return in.le<std::int64_t>("value");
    default:
      return in.le<double>("value");
  }
}

void read_value(FileCursor& in, GgufHeader& header, const std::string& key) {
  const auto type = in.le<std::uint32_t>("type of a value");
  if (type >= kTypes) in.refuse(fmt::format("key '{}': type {}, expected 0..12", printable(key), type));
  if (type == kString)
    header.values[key] = in.text(in.le<std::uint64_t>("length of a text"), kLongestText, "text");
  else if (type == kArray)
    skip_array(in, key);
  else
    header.values[key] = number_value(in, type, key);
}

std::uint64_t alignment_of(const FileCursor& in, const GgufHeader& header) {
  const auto at = header.values.find("general.alignment");
  if (at == header.values.end()) return 32;
  const auto* number = std::get_if<std::uint64_t>(&at->second);
  if (number == nullptr || *number < 8 || *number > kMaxAlignment || (*number & (*number - 1)) != 0)
    in.refuse(fmt::format("general.alignment: expected a power of two from 8 to {}", kMaxAlignment));
  return *number;
}

GgufTensor read_tensor(FileCursor& in) {
  GgufTensor tensor;
  tensor.name = in.text(in.le<std::uint64_t>("length of a tensor's name"), kLongestName, "tensor's name");
  if (!is_clean_utf8(tensor.name))
    in.refuse(fmt::format("tensor '{}': the name is not UTF-8 without NUL", printable(tensor.name)));
  const auto rank = in.le<std::uint32_t>("number of dimensions");
  if (rank < 1 || rank > 4)
    in.refuse(fmt::format("tensor '{}': {} dimensions, expected 1..4", printable(tensor.name), rank));
  for (std::uint32_t i = 0; i < rank; ++i) tensor.dims.push_back(in.le<std::uint64_t>("dimension"));
  tensor.type = in.le<std::uint32_t>("type of a tensor");
  tensor.offset = in.le<std::uint64_t>("offset of a tensor");
  return tensor;
}

/// Elements of one block and its bytes: 1 and the size of a value for plain types; bytes 0 for a type not known.
struct BlockSize {
  std::uint64_t elements = 1, bytes = 0;
};
BlockSize block_size(std::uint32_t type) noexcept {
  if (const auto plain = gguf_plain_type(type)) return {1, bits(*plain) / 8};
  if (const BlockType* blocks = block_type(type)) return {blocks->elements, blocks->bytes};
  return {};
}

/// Bytes of a tensor of a known type: whole blocks along the first dimension.
std::uint64_t bytes_of(const FileCursor& in, const GgufTensor& tensor, const BlockSize& size) {
  const auto refuse = [&](const std::string& what) {
    in.refuse(fmt::format("tensor '{}': {}", printable(tensor.name), what));
  };
  if (tensor.dims[0] % size.elements != 0)
    refuse(fmt::format("{} values in its first dimension, expected a multiple of {}", tensor.dims[0], size.elements));
  std::uint64_t count = 0, bytes = 0;
  if (!count_elements(tensor.dims, count) || !checked_mul(count / size.elements, size.bytes, bytes) ||
      bytes > kMaxBytes)
    refuse("its size overflows");
  return bytes;
}

/// Offsets become places in the file; what they must be is the padded sum of the sizes before, where those are known.
void place_tensors(const FileCursor& in, GgufHeader& header) {
  std::uint64_t expected = 0;
  bool known = true;
  for (GgufTensor& tensor : header.tensors) {
    const auto refuse = [&](const std::string& what) {
      in.refuse(fmt::format("tensor '{}': {}", printable(tensor.name), what));
    };
    const BlockSize size = block_size(tensor.type);
    std::uint64_t end = 0, place = 0;
    if (size.bytes > 0) tensor.bytes = bytes_of(in, tensor, size);
    if (tensor.offset % header.alignment != 0)
      refuse(fmt::format("offset {}, expected a multiple of {}", tensor.offset, header.alignment));
    if (known && tensor.offset != expected) refuse(fmt::format("offset {}, expected {}", tensor.offset, expected));
    known = size.bytes > 0;
    if (!checked_add(header.data, tensor.offset, place) || (place > in.file_bytes() && tensor.bytes > 0))
      refuse(fmt::format("offset {}, the file has {} bytes", tensor.offset, in.file_bytes()));
    if (!checked_add(place, tensor.bytes, end) || (end > in.file_bytes() && tensor.bytes > 0))
      refuse(fmt::format("{} bytes at {}, the file has {}", tensor.bytes, place, in.file_bytes()));
    expected = ceil_div(tensor.offset + tensor.bytes, header.alignment) * header.alignment;
    tensor.offset = std::min(place, in.file_bytes());
  }
}

}  // namespace

const std::string* GgufHeader::text(const std::string& key) const noexcept {
  const auto at = values.find(key);
  return at == values.end() ? nullptr : std::get_if<std::string>(&at->second);
}

const std::uint64_t* GgufHeader::number(const std::string& key) const noexcept {
  const auto at = values.find(key);
  return at == values.end() ? nullptr : std::get_if<std::uint64_t>(&at->second);
}

std::optional<DType> gguf_plain_type(std::uint32_t type) noexcept {
  constexpr std::pair<std::uint32_t, DType> kPlain[] = {{0, DType::f32},  {1, DType::f16},  {24, DType::i8},
                                                        {25, DType::i16}, {26, DType::i32}, {27, DType::i64},
                                                        {28, DType::f64}, {30, DType::bf16}};
  for (const auto& [id, dtype] : kPlain)
    if (id == type) return dtype;
  return std::nullopt;
}

GgufHeader read_gguf_header(const File& file) {
  FileCursor in(file);
  if (in.text(4, 4, "magic") != "GGUF") in.refuse("not a GGUF file");
  const auto version = in.le<std::uint32_t>("version");
  if (version != 2 && version != 3)
    fail(Errc::unsupported,
         fmt::format("{}: {}, expected version 2 or 3", printable(file.path().native()),
                     version != 0 && (version & 0xFFFF) == 0 ? "a big-endian GGUF file"
                                                             : fmt::format("a GGUF file of version {}", version)));
  const auto tensors = in.le<std::uint64_t>("number of tensors"), pairs = in.le<std::uint64_t>("number of keys");
  constexpr std::uint64_t kMinPair = 8 + 4 + 1, kMinTensor = 8 + 4 + 8 + 4 + 8;
  if (pairs > in.left() / kMinPair) in.refuse(fmt::format("{} keys cannot be in {} bytes", pairs, in.left()));
  GgufHeader header;
  std::set<std::string> keys, names;
  for (std::uint64_t i = 0; i < pairs; ++i) {
    const std::uint64_t begin = in.offset();
    const std::string key = in.text(in.le<std::uint64_t>("length of a key"), kLongestKey, "key");
    if (!keys.insert(key).second) in.refuse(fmt::format("the key '{}' is there twice", printable(key)));
    if (!is_clean_utf8(key)) in.refuse(fmt::format("the key '{}' is not UTF-8 without NUL", printable(key)));
    read_value(in, header, key);
    header.pairs.push_back({key, begin, in.offset()});
  }
  if (tensors > in.left() / kMinTensor) in.refuse(fmt::format("{} tensors cannot be in {} bytes", tensors, in.left()));
  for (std::uint64_t i = 0; i < tensors; ++i) {
    header.tensors.push_back(read_tensor(in));
    if (!names.insert(header.tensors.back().name).second)
      in.refuse(fmt::format("the tensor '{}' is there twice", printable(header.tensors.back().name)));
  }
  header.alignment = alignment_of(in, header);
  header.data = ceil_div(in.offset(), header.alignment) * header.alignment;
  place_tensors(in, header);
  return header;
}

}  // namespace lmq
