#pragma once
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <stdlib.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lmq/base/dtype.hpp"
#include "lmq/base/error.hpp"

// Files for tests: checkpoints from lists of tensors, broken ones from raw header texts. Header-only and written apart
// from the room's own writer, so that the one checks the other.
namespace lmq::test {

/// A folder of its own, removed at the end.
class TempFolder {
 public:
  TempFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "lmq-test-XXXXXX").native();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no folder for a test");
    path_ = pattern;
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  [[nodiscard]] std::filesystem::path operator/(const std::filesystem::path& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

template <class T>
std::vector<std::byte> bytes_of(const std::vector<T>& values) {
  const auto bytes = std::as_bytes(std::span(values));
  return {bytes.begin(), bytes.end()};
}
inline std::vector<std::byte> bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}
/// Floats cut to BF16 (truncated: give values that BF16 has).
inline std::vector<std::byte> bf16_bytes(const std::vector<float>& values) {
  std::vector<std::uint16_t> halves;
  for (const float value : values)
    halves.push_back(static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16));
  return bytes_of(halves);
}

struct TestTensor {
  std::string name;
  DType dtype = DType::f32;
  std::vector<std::uint64_t> shape;
  std::vector<std::byte> bytes;
};
inline TestTensor f32_tensor(std::string name, std::vector<std::uint64_t> shape, const std::vector<float>& values) {
  return {std::move(name), DType::f32, std::move(shape), bytes_of(values)};
}
inline TestTensor bf16_tensor(std::string name, std::vector<std::uint64_t> shape, const std::vector<float>& values) {
  return {std::move(name), DType::bf16, std::move(shape), bf16_bytes(values)};
}
inline TestTensor byte_tensor(std::string name, DType dtype, std::vector<std::uint64_t> shape,
                              std::vector<std::uint8_t> values) {
  return {std::move(name), dtype, std::move(shape), bytes_of(values)};
}

/// JSON text with quotes; bytes below 0x20, quotes and backslashes escaped.
inline std::string json_text(std::string_view text) {
  std::string out(1, '"');
  for (const char c : text) {
    if (c == '"' || c == '\\') out.append(1, '\\');
    if (static_cast<unsigned char>(c) < 0x20)
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    else
      out.append(1, c);
  }
  out.append(1, '"');
  return out;
}

/// Header text of tensors in the order given.
inline std::string header_text(const std::vector<TestTensor>& tensors,
                               const std::map<std::string, std::string>& metadata = {}) {
  std::vector<std::string> entries, texts;
  for (const auto& [key, value] : metadata) texts.push_back(fmt::format("{}:{}", json_text(key), json_text(value)));
  if (!metadata.empty()) entries.push_back(fmt::format("\"__metadata__\":{{{}}}", fmt::join(texts, ",")));
  std::size_t begin = 0;
  for (const TestTensor& tensor : tensors) {
    const std::size_t end = begin + tensor.bytes.size();
    entries.push_back(fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                                  json_text(tensor.name), name(tensor.dtype), fmt::join(tensor.shape, ","), begin,
                                  end));
    begin = end;
  }
  return fmt::format("{{{}}}", fmt::join(entries, ","));
}

/// A file of any header text: length field, text, data. `length` overrides the true length.
inline std::vector<std::byte> raw_safetensors(std::string_view header, std::size_t data_bytes = 0,
                                              std::optional<std::uint64_t> length = {}) {
  const std::uint64_t written = length.value_or(header.size());
  std::vector<std::byte> file(8 + header.size() + data_bytes);
  std::memcpy(file.data(), &written, 8);
  std::memcpy(file.data() + 8, header.data(), header.size());
  return file;
}
inline std::vector<std::byte> safetensors_bytes(const std::vector<TestTensor>& tensors,
                                                const std::map<std::string, std::string>& metadata = {}) {
  std::vector<std::byte> file = raw_safetensors(header_text(tensors, metadata));
  for (const TestTensor& tensor : tensors) file.insert(file.end(), tensor.bytes.begin(), tensor.bytes.end());
  return file;
}

inline void write_file(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!file.flush()) throw std::runtime_error("a test file cannot be written");
}
inline void write_file(const std::filesystem::path& path, std::string_view text) {
  write_file(path, std::as_bytes(std::span(text)));
}
inline std::vector<std::byte> read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("a test file cannot be read");
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  return bytes_of(std::string_view(text));
}

/// One safetensors file; returns its path.
inline std::filesystem::path make_safetensors(const std::filesystem::path& path, const std::vector<TestTensor>& tensors,
                                              const std::map<std::string, std::string>& metadata = {}) {
  write_file(path, safetensors_bytes(tensors, metadata));
  return path;
}

inline std::string shard_name(std::size_t number, std::size_t count) {
  return fmt::format("model-{:05}-of-{:05}.safetensors", number, count);
}
/// index.json from tensor -> shard.
inline std::string index_text(const std::map<std::string, std::string>& weight_map,
                              const std::string& total_size = {}) {
  std::vector<std::string> entries;
  for (const auto& [tensor, shard] : weight_map)
    entries.push_back(fmt::format("{}:{}", json_text(tensor), json_text(shard)));
  const std::string metadata = total_size.empty() ? "" : fmt::format("\"metadata\":{{\"total_size\":{}}},", total_size);
  return fmt::format("{{{}\"weight_map\":{{{}}}}}", metadata, fmt::join(entries, ","));
}
/// Shards with an index in a folder (made when missing); returns the folder.
inline std::filesystem::path make_shards(const std::filesystem::path& folder,
                                         const std::vector<std::vector<TestTensor>>& shards) {
  std::filesystem::create_directories(folder);
  std::map<std::string, std::string> weight_map;
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const std::string name = shard_name(i + 1, shards.size());
    make_safetensors(folder / name, shards[i]);
    for (const TestTensor& tensor : shards[i]) weight_map[tensor.name] = name, bytes += tensor.bytes.size();
  }
  write_file(folder / "model.safetensors.index.json", index_text(weight_map, std::to_string(bytes)));
  return folder;
}

/// The error that `action` throws, or nothing.
template <class Action>
std::optional<Error> error_of(Action action) {
  try {
    action();
  } catch (const Error& error) {
    return error;
  }
  return std::nullopt;
}

}  // namespace lmq::test
