#include "lmq/io/safetensors_writer.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <system_error>
#include <tuple>

#include "lmq/base/error.hpp"
#include "lmq/base/math.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io/file.hpp"
#include "safetensors_header.hpp"

namespace lmq {
namespace {

using Append = std::function<void(std::span<const std::byte>)>;

/// JSON text with quotes. The caller's texts are UTF-8.
std::string quoted(const std::string& text) {
  if (!is_clean_utf8(text))
    fail(Errc::internal,
         fmt::format("'{}' is not UTF-8 without NUL, expected a name or text for safetensors", printable(text)));
  return nlohmann::json(text).dump();
}

/// Length field and JSON, padded with spaces to a multiple of 8. Tensors are in the order of their data.
std::string make_header(const std::vector<OutgoingTensor>& tensors, const std::map<std::string, std::string>& metadata,
                        std::uint64_t& data_bytes) {
  std::string text = "{\"__metadata__\":{";
  const char* comma = "";
  for (const auto& [key, value] : metadata)
    text += fmt::format("{}{}:{}", std::exchange(comma, ","), quoted(key), quoted(value));
  text += "}";
  std::uint64_t offset = 0;
  for (const OutgoingTensor& tensor : tensors) {
    std::uint64_t end = 0;
    if (!checked_add(offset, byte_count(tensor), end)) fail(Errc::internal, "the tensors exceed 2^64 bytes");
    text += fmt::format(",{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}", quoted(tensor.name),
                        name(tensor.dtype), fmt::join(tensor.shape, ","), offset, end);
    offset = end;
  }
  text += "}";
  text.resize(ceil_div(text.size(), 8) * 8, ' ');
  data_bytes = offset;
  const std::uint64_t length = text.size();
  std::string header(8, '\0');
  std::memcpy(header.data(), &length, sizeof length);
  return header + text;
}

/// Writes bytes one after another; small pieces are gathered first.
class Stream {
 public:
  explicit Stream(const File& file) : file_(file) { gathered_.reserve(kGather); }
  void append(std::span<const std::byte> bytes) {
    if (gathered_.size() + bytes.size() > kGather) flush();
    if (bytes.size() >= kGather) {
      file_.write(written_, bytes);
      written_ += bytes.size();
    } else {
      gathered_.insert(gathered_.end(), bytes.begin(), bytes.end());
    }
  }
  void flush() {
    file_.write(written_, gathered_);
    written_ += gathered_.size();
    gathered_.clear();
  }

 private:
  static constexpr std::size_t kGather = std::size_t{1} << 20;
  const File& file_;
  std::uint64_t written_ = 0;
  std::vector<std::byte> gathered_;
};

void write_tensor(Stream& stream, const OutgoingTensor& tensor,
                  const std::function<void(const OutgoingTensor&, const Append&)>& fill) {
  const std::uint64_t expected = byte_count(tensor);
  std::uint64_t given = 0;
  const auto refuse = [&] {
    fail(Errc::internal,
         fmt::format("tensor '{}': {} bytes were given, expected {}", printable(tensor.name), given, expected));
  };
  fill(tensor, [&](std::span<const std::byte> bytes) {
    given += bytes.size();
    if (given > expected) refuse();
    stream.append(bytes);
  });
  if (given != expected) refuse();
}

}  // namespace

std::uint64_t byte_count(const OutgoingTensor& tensor) {
  std::uint64_t count = 0, bytes = 0;
  if (tensor.shape.size() > kRankLimit || tensor.name.size() > kNameLimit || tensor.name == "__metadata__" ||
      !count_elements(tensor.shape, count) || !count_bytes(tensor.dtype, count, bytes))
    fail(Errc::internal, fmt::format("tensor '{}' of {} [{}] cannot be in a safetensors file", printable(tensor.name),
                                     name(tensor.dtype), fmt::join(tensor.shape, ", ")));
  return bytes;
}

void write_safetensors(const std::filesystem::path& path, std::vector<OutgoingTensor> tensors,
                       const std::map<std::string, std::string>& metadata,
                       const std::function<void(const OutgoingTensor&, const Append&)>& fill) {
  std::ranges::sort(tensors, [](const OutgoingTensor& a, const OutgoingTensor& b) {
    const std::size_t a_bits = bits(a.dtype), b_bits = bits(b.dtype);
    return std::tie(b_bits, a.name) < std::tie(a_bits, b.name);
  });
  std::vector<std::string> names;
  for (const OutgoingTensor& tensor : tensors) names.push_back(tensor.name);
  std::ranges::sort(names);
  if (const auto twice = std::ranges::adjacent_find(names); twice != names.end())
    fail(Errc::internal, fmt::format("tensor '{}' is to be written twice", printable(*twice)));
  static const std::map<std::string, std::string> kUsual{{"format", "pt"}};
  std::uint64_t data_bytes = 0;
  const std::string header = make_header(tensors, metadata.empty() ? kUsual : metadata, data_bytes);
  if (header.size() - 8 > kHeaderLimit)
    fail(Errc::cannot_create, fmt::format("{}: the header needs {} bytes, safetensors allows {}",
                                          printable(path.native()), header.size() - 8, kHeaderLimit));
  write_whole(path, [&](const File& file) {
    file.reserve(header.size() + data_bytes);
    Stream stream(file);
    stream.append(std::as_bytes(std::span(header)));
    for (const OutgoingTensor& tensor : tensors) write_tensor(stream, tensor, fill);
    stream.flush();
    file.sync();
  });
}

}  // namespace lmq
