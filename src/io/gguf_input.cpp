#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>

#include "gguf_blocks.hpp"
#include "gguf_header.hpp"
#include "inputs.hpp"
#include "lmq/base/digest.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io/placement.hpp"
#include "one_file.hpp"

namespace lmq {
namespace {

constexpr std::string_view kFormat = "GGUF";
constexpr std::uint64_t kMaxHeader = std::uint64_t{1} << 30;

std::string header_digest(const File& file, const GgufHeader& header) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(std::min({header.data, file.size(), kMaxHeader})));
  file.read(0, bytes);
  return digest128_hex(bytes);
}

std::string value_text(const GgufHeader::Value& value) {
  return std::visit([](const auto& v) { return fmt::format("{}", v); }, value);
}

void add_tensor(TensorList& list, const std::string& source, const GgufTensor& tensor, std::uint32_t shard) {
  TensorInfo info;
  info.name = tensor.name;
  info.shape.assign(tensor.dims.rbegin(), tensor.dims.rend());
  info.offset = tensor.offset;
  info.bytes = tensor.bytes;
  info.shard = shard;
  if (const auto plain = gguf_plain_type(tensor.type)) {
    info.dtype = *plain;
    return list.add(std::move(info));
  }
  const BlockType* const blocks = block_type(tensor.type);
  if (blocks == nullptr || blocks->decode == nullptr)
    fail(Errc::unsupported,
         fmt::format("{}: tensor '{}': blocks of type {}, which are not decoded; llama.cpp's llama-quantize "
                     "--allow-requantize IN.gguf OUT.gguf F16 writes it in a type that is",
                     source, printable(tensor.name),
                     blocks == nullptr ? std::to_string(tensor.type) : std::string(blocks->name)));
  Placement placement;
  placement.block_type = tensor.type;
  list.add(std::move(info), std::move(placement));
}

/// A part of a split set says which it is.
void check_part(const std::string& source, const GgufHeader& header, std::size_t part, std::size_t parts) {
  const std::uint64_t* const count = header.number("split.count");
  const std::uint64_t said = count == nullptr ? 1 : *count;
  if (said > 1 && said != parts)
    fail(Errc::malformed, fmt::format("{}: split.count is {}, but by its name it is one of {}", source, said, parts));
  const std::uint64_t* const number = header.number("split.no");
  if (said > 1 && number != nullptr && *number != part)
    fail(Errc::malformed, fmt::format("{}: split.no is {}, expected {}", source, *number, part));
}

}  // namespace

bool is_gguf(const File& file) {
  std::array<std::byte, 4> start{};
  if (file.size() < start.size()) return false;
  file.read(0, start);
  return std::memcmp(start.data(), "GGUF", start.size()) == 0;
}

Catalogue read_gguf(const std::filesystem::path& path) {
  const auto parts = numbered_set(path);
  Catalogue catalogue = folder_catalogue(path, std::string(kFormat));
  TensorList list;
  std::map<std::string_view, std::size_t> blocks;
  for (std::size_t p = 0; p < parts.size(); ++p) {
    const File file(parts[p], File::Mode::read);
    const std::string source = printable(parts[p].native());
    const GgufHeader header = read_gguf_header(file);
    check_part(source, header, p, parts.size());
    if (const std::string* type = header.text("general.type"); type != nullptr && *type == "imatrix")
      fail(Errc::unsupported, fmt::format("{}: an imatrix, no model: name it with --importance", source));
    const std::uint32_t shard = add_shard(catalogue, file, header_digest(file, header));
    std::map<std::string, std::string> metadata;
    for (const auto& [key, value] : header.values) metadata[key] = value_text(value);
    catalogue.shards.back().metadata = std::move(metadata);
    for (const GgufTensor& tensor : header.tensors) {
      add_tensor(list, source, tensor, shard);
      if (const BlockType* type = block_type(tensor.type)) ++blocks[type->name];
    }
  }
  catalogue.metadata = catalogue.shards[0].metadata;
  list.give(catalogue, printable(path.native()));
  std::string counted;
  for (const auto& [name, count] : blocks)
    counted += fmt::format("{}{} of {}", counted.empty() ? "" : ", ", count, name);
  if (!counted.empty())
    catalogue.warnings.push_back(
        fmt::format("{}: tensors are quantized already ({}): their values are taken as they "
                    "decode; an F16 or BF16 file of the model gives better ones",
                    printable(path.native()), counted));
  return catalogue;
}

}  // namespace lmq
