#include "lmq/io/gguf_writer.hpp"

#include <fmt/format.h>

#include "gguf_header.hpp"
#include "lmq/base/bytes.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/math.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io/file.hpp"

namespace lmq {
namespace {

constexpr std::uint64_t kAlignment = 32;
constexpr std::size_t kLongestName = 63;
constexpr std::uint32_t kNumber = 4, kText = 8;

std::uint64_t padded(std::uint64_t bytes) { return ceil_div(bytes, kAlignment) * kAlignment; }

std::vector<std::byte> make_head(const GgufKeys& keys, const std::vector<OutgoingGguf>& tensors,
                                 const std::string& source) {
  ByteWriter out;
  out.raw(std::as_bytes(std::span("GGUF", 4)));
  out.le(std::uint32_t{3});
  out.le(std::uint64_t{tensors.size()});
  out.le(keys.count());
  out.raw(keys.bytes());
  std::uint64_t offset = 0;
  for (const OutgoingGguf& tensor : tensors) {
    if (tensor.name.size() > kLongestName || tensor.shape.size() > 4)
      fail(Errc::unsupported,
           fmt::format("{}: tensor '{}': GGUF holds names of at most {} bytes and 4 dimensions, found {} and {}",
                       source, printable(tensor.name), kLongestName, tensor.name.size(), tensor.shape.size()));
    out.le(std::uint64_t{tensor.name.size()});
    out.raw(std::as_bytes(std::span(tensor.name)));
    const std::vector<std::uint64_t> dims = tensor.shape.empty() ? std::vector<std::uint64_t>{1} : tensor.shape;
    out.le(static_cast<std::uint32_t>(dims.size()));
    for (auto dim = dims.rbegin(); dim != dims.rend(); ++dim) out.le(*dim);
    out.le(tensor.type);
    out.le(offset);
    offset += padded(tensor.bytes);
  }
  std::vector<std::byte> head = out.take();
  head.resize(static_cast<std::size_t>(padded(head.size())));
  return head;
}

}  // namespace

void GgufKeys::put(const void* data, std::size_t bytes) {
  const auto* const from = static_cast<const std::byte*>(data);
  bytes_.insert(bytes_.end(), from, from + bytes);
}

void GgufKeys::put_text(std::string_view text) {
  const std::uint64_t length = text.size();
  put(&length, sizeof length);
  put(text.data(), text.size());
}

void GgufKeys::add(std::string_view key, std::string_view text) {
  put_text(key);
  put(&kText, sizeof kText);
  put_text(text);
  ++count_;
}

void GgufKeys::add(std::string_view key, std::uint32_t number) {
  put_text(key);
  put(&kNumber, sizeof kNumber);
  put(&number, sizeof number);
  ++count_;
}

void GgufKeys::copy(const std::filesystem::path& path) {
  const File file(path, File::Mode::read);
  for (const GgufPair& pair : read_gguf_header(file).pairs) {
    if (pair.key == "general.alignment" || pair.key == "general.file_type" ||
        pair.key == "general.quantization_version" || pair.key.starts_with("split."))
      continue;
    const std::size_t begin = bytes_.size();
    bytes_.resize(begin + static_cast<std::size_t>(pair.end - pair.begin));
    file.read(pair.begin, std::span(bytes_).subspan(begin));
    ++count_;
  }
}

std::vector<std::string> gguf_tensor_names(const std::filesystem::path& path) {
  std::vector<std::string> names;
  for (const GgufTensor& tensor : read_gguf_header(File(path, File::Mode::read)).tensors) names.push_back(tensor.name);
  return names;
}

void write_gguf(const std::filesystem::path& path, const GgufKeys& keys, const std::vector<OutgoingGguf>& tensors,
                const std::function<void(std::size_t, const std::function<void(std::span<const std::byte>)>&)>& fill) {
  const std::vector<std::byte> head = make_head(keys, tensors, printable(path.native()));
  write_whole(path, [&](const File& file) {
    file.write(0, head);
    std::uint64_t at = head.size();
    for (std::size_t t = 0; t < tensors.size(); ++t) {
      const std::uint64_t begin = at;
      fill(t, [&](std::span<const std::byte> bytes) {
        if (bytes.size() > tensors[t].bytes - (at - begin))
          fail(Errc::internal, fmt::format("tensor '{}': more than its {} bytes", tensors[t].name, tensors[t].bytes));
        file.write(at, bytes);
        at += bytes.size();
      });
      if (at - begin != tensors[t].bytes)
        fail(Errc::internal,
             fmt::format("tensor '{}': {} bytes, expected {}", tensors[t].name, at - begin, tensors[t].bytes));
      at = padded(at);
    }
    file.truncate(at);
  });
}

}  // namespace lmq
