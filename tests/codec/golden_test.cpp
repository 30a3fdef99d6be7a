#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "lmq/codec/record.hpp"
#include "test_data.hpp"
#include "units.hpp"

using namespace lmq;

// Files of tests/data/golden were written once by record version 3 and stay. Every unit is stated here by a rule, so
// the files can be checked without this program's coder.
namespace {
struct Golden {
  const char* name;
  CoderChoice choice;
  QuantizedUnit unit;
};

/// Code of weight i: the number of trailing zeros of i + 1 (1/2 of the codes are 0, 1/4 are 1, ...), at most levels
/// - 1.
Code ruler(std::uint64_t i, unsigned levels) {
  return static_cast<Code>(std::min<unsigned>(static_cast<unsigned>(std::countr_zero(i + 1)), levels - 1));
}

QuantizedUnit ruler_unit(std::uint64_t count, unsigned levels) {
  QuantizedUnit unit = bare_unit(1, count, levels);
  for (unsigned k = 0; k < levels; ++k) unit.book.push_back(static_cast<float>(k) * 0.25F - 1.0F);
  for (std::uint64_t i = 0; i < count; ++i) unit.codes.push_back(ruler(i, levels));
  return unit;
}

Golden rans_table() { return {"rans_table", CoderChoice::rans, ruler_unit(1000, 8)}; }
Golden rans_lanes16() { return {"rans_lanes16", CoderChoice::rans, ruler_unit(16'421, 6)}; }
Golden fixed_table() {
  Golden golden{"fixed_table", CoderChoice::fixed, ruler_unit(101, 8)};
  for (std::size_t i = 0; i < golden.unit.codes.size(); ++i) golden.unit.codes[i] = static_cast<Code>(i * 5 % 8);
  return golden;
}
Golden fixed_grid() {
  Golden golden{"fixed_grid", CoderChoice::fixed, ruler_unit(64, 16)};
  golden.unit.kind = CodebookKind::grid;
  golden.unit.book = {-0.5F, 0.0625F};
  for (std::size_t i = 0; i < golden.unit.codes.size(); ++i) golden.unit.codes[i] = static_cast<Code>(i * 7 % 16);
  return golden;
}
Golden huffman_table() {
  Golden golden{"huffman_table", CoderChoice::cheapest, ruler_unit(1003, 7)};
  golden.unit.levels = 9;  // the last two are not used
  golden.unit.book = {-1, -0.75F, -0.5F, -0.25F, 0, 0.25F, 0.5F, 0.75F, 1};
  return golden;
}
Golden huffman_streams() { return {"huffman_streams", CoderChoice::huffman, ruler_unit(8195, 16)}; }
Golden half_table() {
  Golden golden{"half_table", CoderChoice::fixed, ruler_unit(300, 4)};
  golden.unit.level_type = LevelType::f16;
  golden.unit.source = DType::f32;
  golden.unit.book = {-0.3F, -1e-3F, 2e-3F, 0.7F};
  round_levels(golden.unit.book, LevelType::f16);
  return golden;
}
Golden group_grid() {
  Golden golden{"group_grid", CoderChoice::rans, ruler_unit(6 * 20, 4)};
  golden.unit.kind = CodebookKind::grid;
  golden.unit.level_type = LevelType::f16;
  golden.unit.cols = 20;
  golden.unit.group = 8;
  golden.unit.book.clear();
  for (int k = 0; k < 18; ++k) golden.unit.book.insert(golden.unit.book.end(), {static_cast<float>(-k), 0.5F});
  return golden;
}
Golden single_code() {
  Golden golden{"single_code", CoderChoice::cheapest, ruler_unit(5000, 3)};
  golden.unit.codes.assign(5000, 2);
  return golden;
}
Golden wide_alphabet() {
  Golden golden{"wide_alphabet", CoderChoice::rans, ruler_unit(2000, 256)};
  for (std::size_t i = 0; i < 2000; ++i) golden.unit.codes[i] = static_cast<Code>(i % 7 == 0 ? i % 256 : 128 + i % 3);
  golden.unit.kind = CodebookKind::grid;
  golden.unit.book = {-1.0F, 0.0078125F};
  return golden;
}
Golden bases_planes() {
  Golden golden{"bases_planes", CoderChoice::cheapest, ruler_unit(4 * 40, 4)};
  golden.unit.kind = CodebookKind::bases;
  golden.unit.level_type = LevelType::f16;
  golden.unit.method = 10;
  golden.unit.cols = 40;
  golden.unit.group = 16;
  golden.unit.book.clear();
  for (int k = 0; k < 12; ++k) golden.unit.book.insert(golden.unit.book.end(), {static_cast<float>(k + 1), 0.5F});
  for (std::size_t i = 0; i < golden.unit.codes.size(); ++i) golden.unit.codes[i] = static_cast<Code>(i * 7 % 4);
  return golden;
}
Golden centred_ternary() {
  Golden golden{"centred_ternary", CoderChoice::rans, ruler_unit(2000, 3)};
  golden.unit.kind = CodebookKind::centred;
  golden.unit.method = 9;
  golden.unit.book = {0.75F};
  return golden;
}
Golden rank1_factors() {
  Golden golden{"rank1_factors", CoderChoice::planes, ruler_unit(3 * 10, 2)};
  golden.unit.kind = CodebookKind::rank1;
  golden.unit.cols = 10;
  golden.unit.book = {1, 2, 4, 0.5F, 1, 1.5F, 2, 2.5F, 3, 3.5F, 4, 4.5F, 5, -1, 1};
  return golden;
}

std::vector<Golden> all() {
  return {rans_table(),   huffman_table(),   huffman_streams(), rans_lanes16(), fixed_table(),
          fixed_grid(),   half_table(),      group_grid(),      single_code(),  wide_alphabet(),
          bases_planes(), centred_ternary(), rank1_factors()};
}

std::filesystem::path path_of(const Golden& golden) {
  return test_data() / "golden" / (std::string(golden.name) + ".lmqr");
}

std::vector<std::byte> bytes_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE(file);
  const std::vector<char> chars{std::istreambuf_iterator<char>(file), {}};
  const auto bytes = std::as_bytes(std::span(chars));
  return {bytes.begin(), bytes.end()};
}
}  // namespace

TEST_CASE("golden: the records decode to the stated unit and values", "[golden]") {
  for (const Golden& golden : all()) {
    CAPTURE(golden.name);
    const auto bytes = bytes_of(path_of(golden));
    REQUIRE(same(decode_record(bytes, golden.name), golden.unit));
    std::vector<float> values(golden.unit.count);
    decode_record_values(bytes, values, golden.name);
    REQUIRE(values == values_of(golden.unit));
  }
}

TEST_CASE("golden: the same unit is still coded as the same bytes", "[golden]") {
  for (const Golden& golden : all()) {
    CAPTURE(golden.name);
    REQUIRE(encode_record(golden.unit, golden.choice).bytes == bytes_of(path_of(golden)));
  }
}

TEST_CASE("golden: some values in plain numbers", "[golden]") {
  std::vector<float> values(64);
  decode_record_values(bytes_of(path_of(fixed_grid())), values, "fixed_grid");
  REQUIRE(values[0] == -0.5F);
  REQUIRE(values[1] == -0.0625F);  // code 7
  REQUIRE(values[2] == 0.375F);    // code 14
  values.resize(1000);
  decode_record_values(bytes_of(path_of(rans_table())), values, "rans_table");
  REQUIRE(std::vector<float>(values.begin(), values.begin() + 8) ==
          std::vector<float>{-1, -0.75F, -1, -0.5F, -1, -0.75F, -1, -0.25F});
  values.resize(120);
  decode_record_values(bytes_of(path_of(group_grid())), values, "group_grid");
  REQUIRE(values[7] == 1.5F);    // row 0, group 0, code 3
  REQUIRE(values[8] == -1.0F);   // row 0, group 1, code 0
  REQUIRE(values[21] == -2.5F);  // row 1, group 0 (the fourth codebook), code 1
  values.resize(160);
  decode_record_values(bytes_of(path_of(bases_planes())), values, "bases_planes");
  REQUIRE(values[0] == -1.5F);  // codebook 0 (1, 0.5), code 0: - -
  REQUIRE(values[17] == 2.5F);  // codebook 1 (2, 0.5), code 3: + +
  REQUIRE(values[42] == 3.5F);  // row 1, codebook 3 (4, 0.5), code 2: + -
  values.resize(30);
  decode_record_values(bytes_of(path_of(rank1_factors())), values, "rank1_factors");
  REQUIRE(values[0] == -0.5F);  // 1 * 0.5, code 0
  REQUIRE(values[13] == 4.0F);  // 2 * 2, code 1
}

TEST_CASE("golden: write the files that are missing (only for a new record version)", "[.write-golden]") {
  for (const Golden& golden : all()) {
    if (std::filesystem::exists(path_of(golden))) continue;
    const auto bytes = encode_record(golden.unit, golden.choice).bytes;
    std::ofstream(path_of(golden), std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  }
}
