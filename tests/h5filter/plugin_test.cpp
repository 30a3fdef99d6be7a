#include <hdf5.h>

#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <numeric>
#include <string>
#include <vector>

#include "lmq/codec/record.hpp"
#include "lmq/h5filter/decode_chunk.hpp"
#include "lmq/io/file.hpp"
#include "lmq/io_hdf5/hdf5_format.hpp"

using namespace lmq;

namespace {

constexpr hsize_t kRows = 11, kCols = 6, kChunkRows = 4;

QuantizedUnit unit_of(std::uint64_t rows, std::uint64_t seed) {
  QuantizedUnit unit;
  unit.count = rows * kCols;
  unit.levels = 4;
  unit.book = {-1.5f, -0.25f, 0.5f, 2.0f};
  unit.codes.resize(unit.count);
  for (std::size_t i = 0; i < unit.codes.size(); ++i) unit.codes[i] = static_cast<Code>((i * 7 + seed) % 4);
  return unit;
}

/// Chunks of 4 rows, the last reaches over the edge; chunk `damaged` gets a flipped byte.
std::vector<float> write_file(const std::string& path, int damaged = -1) {
  std::vector<float> expected;
  std::vector<std::vector<std::byte>> records;
  DatasetLayout weights;
  weights.path = "/w";
  weights.shape = {kRows, kCols};
  weights.chunk = {kChunkRows, kCols};
  weights.encoded = true;
  for (hsize_t row = 0; row < kRows; row += kChunkRows) {
    const QuantizedUnit unit = unit_of(std::min(kChunkRows, kRows - row), row);
    for (const Code code : unit.codes) expected.push_back(unit.book[code]);
    auto record = encode_record(unit, CoderChoice::cheapest).bytes;
    if (static_cast<int>(row / kChunkRows) == damaged) record[record.size() / 2] ^= std::byte{4};
    weights.piece_bytes.push_back(record.size());
    records.push_back(std::move(record));
  }
  FileLayout layout;
  layout.datasets = {weights};
  const FilePlaces places = make_hdf5_format()->create(path, layout);
  const File file(path, File::Mode::update);
  for (std::size_t piece = 0; piece < records.size(); ++piece) file.write(places.offsets[0][piece], records[piece]);
  return expected;
}

std::string error_text() {
  char* text = nullptr;
  std::size_t size = 0;
  FILE* memory = open_memstream(&text, &size);
  H5Eprint2(H5E_DEFAULT, memory);
  std::fclose(memory);
  std::string result(text, size);
  std::free(text);
  return result;
}

/// `error` receives what HDF5 said when reading failed.
herr_t read_rows(const std::string& path, hsize_t first, hsize_t rows, std::vector<float>& values,
                 std::string* error = nullptr) {
  values.assign(rows * kCols, -99);
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), set = H5Dopen2(file, "w", H5P_DEFAULT);
  const hid_t from = H5Dget_space(set);
  const hsize_t start[2] = {first, 0}, count[2] = {rows, kCols};
  H5Sselect_hyperslab(from, H5S_SELECT_SET, start, nullptr, count, nullptr);
  const hid_t to = H5Screate_simple(2, count, nullptr);
  const herr_t status = H5Dread(set, H5T_NATIVE_FLOAT, to, from, H5P_DEFAULT, values.data());
  if (status < 0 && error != nullptr) *error = error_text();
  H5Sclose(to), H5Sclose(from), H5Dclose(set), H5Fclose(file);
  return status;
}

struct TemporaryFile {
  std::string path =
      (std::filesystem::temp_directory_path() / ("lmq-filter-" + std::to_string(getpid()) + ".h5")).string();
  ~TemporaryFile() { std::filesystem::remove(path); }
};

}  // namespace

TEST_CASE("without the plug-in HDF5 names the missing filter; with it, every chunk reads, also that at the edge",
          "[h5filter]") {
  const TemporaryFile file;
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  H5PLreplace("/nonexistent", 0);
  const auto expected = write_file(file.path);
  std::vector<float> values;
  // First without: the search happens on reading, and a failed one is not remembered.
  std::string error;
  REQUIRE(read_rows(file.path, 0, kRows, values, &error) < 0);
  CAPTURE(error);
  CHECK(error.find("lmq") != std::string::npos);
  H5PLreplace(LMQ_PLUGIN_FOLDER, 0);
  REQUIRE(read_rows(file.path, 0, kRows, values) >= 0);
  CHECK(values == expected);
  REQUIRE(read_rows(file.path, 9, 2, values) >= 0);
  CHECK(values == std::vector<float>(expected.begin() + 9 * kCols, expected.end()));

  for (int damaged = 0; damaged < 3; ++damaged) {
    CAPTURE(damaged);
    write_file(file.path, damaged);
    CHECK(read_rows(file.path, 0, kRows, values) < 0);                  // never wrong numbers
    CHECK(read_rows(file.path, damaged == 0 ? 4 : 0, 1, values) >= 0);  // other chunks are not touched
  }
}

TEST_CASE("decode_chunk pads with zeros and refuses what does not fit", "[h5filter]") {
  const QuantizedUnit unit = unit_of(2, 1);
  const auto record = encode_record(unit, CoderChoice::fixed).bytes;
  std::size_t bytes = 0;
  const auto floats = [&](std::uint64_t room) {
    std::byte* buffer = decode_chunk(record, room, bytes);
    std::vector<float> values;
    if (buffer != nullptr)
      values.assign(reinterpret_cast<float*>(buffer), reinterpret_cast<float*>(buffer) + bytes / 4);
    std::free(buffer);
    return values;
  };
  const auto padded = floats(80);
  REQUIRE(bytes == 80);
  REQUIRE(padded.size() == 20);
  for (std::size_t i = 0; i < 20; ++i) CHECK(padded[i] == (i < 12 ? unit.book[unit.codes[i]] : 0.0f));
  CHECK(floats(0).size() == 12);
  CHECK(floats(48).size() == 12);
  CHECK(floats(47).empty());
  CHECK(floats(1ULL << 40).empty());  // no chunk is that large
  CHECK(decode_chunk({}, 80, bytes) == nullptr);
}
