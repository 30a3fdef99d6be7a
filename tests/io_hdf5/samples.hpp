#pragma once
#include <unistd.h>
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "lmq/base/math.hpp"
#include "lmq/io/layout.hpp"

namespace lmq::samples {

/// A folder of its own, gone at the end.
class Folder {
 public:
  explicit Folder(const std::string& name)
      : path_(std::filesystem::temp_directory_path() / ("lmq_" + name + "_" + std::to_string(getpid()))) {
    std::filesystem::create_directories(path_);
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  [[nodiscard]] std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

inline std::string bytes_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline DatasetLayout contiguous(std::string path, DType type, std::vector<std::uint64_t> shape,
                                std::vector<Attribute> attributes = {}) {
  DatasetLayout dataset;
  dataset.path = std::move(path), dataset.dtype = type, dataset.shape = std::move(shape);
  std::uint64_t count = 1;
  for (const std::uint64_t dim : dataset.shape) count *= dim;
  dataset.piece_bytes = {ceil_div(count * bits(type), 8)};
  dataset.attributes = std::move(attributes);
  return dataset;
}

inline std::uint64_t chunk_count(const DatasetLayout& dataset) {
  std::uint64_t count = 1;
  for (std::size_t i = 0; i < dataset.shape.size(); ++i) count *= ceil_div(dataset.shape[i], dataset.chunk[i]);
  return count;
}

/// Chunks of odd sizes that differ from each other.
inline DatasetLayout encoded(std::string path, std::vector<std::uint64_t> shape, std::vector<std::uint64_t> chunk) {
  DatasetLayout dataset;
  dataset.path = std::move(path), dataset.shape = std::move(shape), dataset.chunk = std::move(chunk);
  dataset.encoded = true;
  for (std::uint64_t i = 0; i < chunk_count(dataset); ++i) dataset.piece_bytes.push_back(1 + 37 * (i % 11) + i % 3);
  return dataset;
}

inline DatasetLayout plain_chunks(std::string path, DType type, std::vector<std::uint64_t> shape,
                                  std::vector<std::uint64_t> chunk) {
  DatasetLayout dataset;
  dataset.path = std::move(path), dataset.dtype = type, dataset.shape = std::move(shape),
  dataset.chunk = std::move(chunk);
  std::uint64_t whole = bits(type) / 8;
  for (const std::uint64_t dim : dataset.chunk) whole *= dim;
  dataset.piece_bytes.assign(chunk_count(dataset), whole);
  return dataset;
}

inline void sort(FileLayout& layout) {
  std::ranges::sort(layout.datasets, {}, &DatasetLayout::path);
  std::ranges::sort(layout.groups, {}, &GroupLayout::path);
}

/// One attribute of every kind, with empty and long and non-ASCII values.
inline std::vector<Attribute> all_attributes() {
  return {{"lmq_text", std::string("k-means")},
          {"empty", std::string()},
          {"größe", std::string("naïve 重み 🙂 \n\t\"quoted\"")},
          {"a_long", std::string(kMaxAttributeBytes, 'x')},
          {"i64", std::int64_t{-9'000'000'000}},
          {"u64", std::uint64_t{0xFFFFFFFFFFFFFFFF}},
          {"f64", 0.1},
          {"list_u64", std::vector<std::uint64_t>{3, 1, 2}},
          {"list_f64", std::vector<double>{-0.0, 1e300}},
          {"none_u64", std::vector<std::uint64_t>{}},
          {"none_f64", std::vector<double>{}}};
}

inline constexpr DType kAllTypes[] = {
    DType::boolean,     DType::u8,  DType::i8,      DType::i16,     DType::u16,     DType::i32,
    DType::u32,         DType::i64, DType::u64,     DType::f16,     DType::bf16,    DType::f32,
    DType::f64,         DType::c64, DType::f8_e4m3, DType::f8_e5m2, DType::f8_e8m0, DType::f8_e4m3fnuz,
    DType::f8_e5m2fnuz, DType::f4,  DType::f6_e2m3, DType::f6_e3m2};

/// Everything a layout can hold, in a small file.
inline FileLayout everything() {
  FileLayout layout;
  layout.root = {{"lmq_format", std::string("lmq")}, {"lmq_format_major", std::uint64_t{1}}};
  layout.groups = {{"/lmq", all_attributes()}, {"/nothing", {}}, {"/vide/été", {{"u", std::uint64_t{1}}}}};
  for (const DType type : kAllTypes) {
    const std::string base = "/types/" + std::string(name(type));
    layout.datasets.push_back(contiguous(base + ".matrix", type, {3, 8}, {{"lmq_dtype", std::string(name(type))}}));
    layout.datasets.push_back(contiguous(base + ".scalar", type, {}));
    layout.datasets.push_back(contiguous(base + ".empty", type, {0, 8}));
    if (bits(type) % 8 == 0 && type != DType::c64)
      layout.datasets.push_back(plain_chunks(base + ".chunks", type, {5, 4}, {2, 4}));
  }
  layout.datasets.push_back(encoded("/encoded/one", {7}, {7}));
  layout.datasets.push_back(encoded("/encoded/edge", {10, 6}, {4, 6}));
  layout.datasets.push_back(encoded("/encoded/grid", {10, 6, 5}, {4, 5, 2}));
  layout.datasets.push_back(encoded("/encoded/many", {5000, 2}, {1, 2}));
  layout.datasets.push_back(encoded("/encoded/with-attributes", {4, 4}, {2, 4}));
  layout.datasets.back().attributes = all_attributes();
  for (int i = 0; i < 100; ++i)
    layout.datasets.back().attributes.push_back({"dense_" + std::to_string(i), static_cast<double>(i)});
  layout.datasets.push_back(contiguous("/a.b-c d/深い/ёж/.../..", DType::f32, {1}));
  layout.datasets.push_back(contiguous("/model.norm", DType::bf16, {9}));
  for (int i = 0; i < 40; ++i)
    layout.datasets.push_back(contiguous("/wide/" + std::to_string(i), DType::i32, {static_cast<std::uint64_t>(i)}));
  sort(layout);
  return layout;
}

/// The payload's byte `i` of a piece; differs between pieces.
inline char payload_byte(std::size_t dataset, std::size_t piece, std::size_t i) {
  return static_cast<char>(dataset * 131 + piece * 31 + i * 7 + 1);
}

inline void fill(const std::filesystem::path& path, const FileLayout& layout, const FilePlaces& places) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  for (std::size_t d = 0; d < layout.datasets.size(); ++d)
    for (std::size_t p = 0; p < layout.datasets[d].piece_bytes.size(); ++p) {
      std::string bytes(layout.datasets[d].piece_bytes[p], '\0');
      for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = payload_byte(d, p, i);
      file.seekp(static_cast<std::streamoff>(places.offsets[d][p]));
      file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    }
}

}  // namespace lmq::samples
