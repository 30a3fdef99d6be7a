#include "block_scales.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "lmq/io/reader.hpp"
#include "make_safetensors.hpp"
#include "small_floats.hpp"

using namespace lmq;
using namespace lmq::test;
using namespace std::string_literals;

namespace {

/// One open checkpoint of a weight "m.weight", further tensors, and a config.json.
std::unique_ptr<Reader> open(const TempFolder& folder, const std::vector<TestTensor>& tensors,
                             const std::string& config = {}) {
  make_safetensors(folder / "model.safetensors", tensors);
  if (!config.empty()) write_file(folder / "config.json", config);
  return open_reader(folder.path());
}
/// What the catalogue notes of its first tensor that has a note; nothing: all is well.
std::optional<Fitness> note_of(const TempFolder& folder, const std::vector<TestTensor>& tensors,
                               const std::string& config = {}, const std::string& part = {}) {
  const auto reader = open(folder, tensors, config);
  const std::vector<TensorNote>& notes = reader->catalogue().notes;
  if (notes.empty()) return std::nullopt;
  CHECK_THAT(notes[0].text, Catch::Contains(part));
  return notes[0].fitness;
}

std::vector<std::uint8_t> pattern(std::size_t count) {
  std::vector<std::uint8_t> bytes(count);
  for (std::size_t i = 0; i < count; ++i)
    bytes[i] = static_cast<std::uint8_t>(i * 37 % 127 + (i % 3 == 0 ? 128 : 0));  // no NaN
  return bytes;
}
std::vector<float> scale_values(std::size_t count) {
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = 0.01F + 0.37F * static_cast<float>(i);
  return values;
}

std::vector<float> floats(const Reader& reader, const char* name, std::uint64_t begin, std::uint64_t count) {
  std::vector<std::byte> scratch;
  const TensorView view = reader.view(
      reader.catalogue().tensors.at(static_cast<std::size_t>(reader.catalogue().find(name))), begin, count, scratch);
  CHECK(view.dtype == DType::f32);
  std::vector<float> values(view.count);
  if (view.count > 0) std::memcpy(values.data(), view.bytes.data(), view.bytes.size());
  return values;
}

/// Whole weight and ranges against the definition: `scale_index(matrix, row, column)` tells which scale belongs.
template <class Index>
void check_scaled(const std::vector<std::uint64_t>& shape, const std::vector<std::uint64_t>& scale_shape,
                  const std::string& config, const std::string& suffix, Index scale_index) {
  const TempFolder folder;
  std::uint64_t count = 1, scale_count = 1;
  for (const std::uint64_t dim : shape) count *= dim;
  for (const std::uint64_t dim : scale_shape) scale_count *= dim;
  const std::vector<std::uint8_t> bytes = pattern(count);
  const std::vector<float> scales = scale_values(scale_count);
  const auto reader = open(
      folder,
      {byte_tensor("m.weight", DType::f8_e4m3, shape, bytes), f32_tensor("m.weight" + suffix, scale_shape, scales)},
      config);
  const TensorInfo& weight = reader->catalogue().tensors[0];
  CHECK(weight.scale == 1);
  CHECK(reader->catalogue().tensors[1].scales == 0);
  CHECK(weight.value_type() == DType::f32);
  const std::uint64_t cols = shape.back(), rows = shape.size() > 1 ? shape[shape.size() - 2] : 1;
  std::vector<float> expected(count);
  for (std::uint64_t i = 0; i < count; ++i)
    expected[i] = f8_values(DType::f8_e4m3)[bytes[i]] * scales[scale_index(i / cols / rows, i / cols % rows, i % cols)];
  CHECK(floats(*reader, "m.weight", 0, count) == expected);
  for (const auto& [begin, length] : {std::pair<std::uint64_t, std::uint64_t>{0, 1},
                                      {count - 1, 1},
                                      {count / 3, count / 2},
                                      {count / 2, 0},
                                      {cols / 2, 1}})
    CHECK(floats(*reader, "m.weight", begin, length) ==
          std::vector<float>(expected.begin() + static_cast<std::ptrdiff_t>(begin),
                             expected.begin() + static_cast<std::ptrdiff_t>(begin + length)));
}

const std::string kConfig = R"({"quantization_config":{"quant_method":"fp8","weight_block_size":[128,128]}})";

}  // namespace

TEST_CASE("8-bit floats have the values of their definitions") {
  const auto& e4m3 = f8_values(DType::f8_e4m3);
  CHECK(e4m3[0] == 0);
  CHECK(std::signbit(e4m3[0x80]));
  CHECK(e4m3[0x01] == std::ldexp(1.0F, -9));
  CHECK(e4m3[0x08] == std::ldexp(1.0F, -6));
  CHECK(e4m3[0x38] == 1);
  CHECK(e4m3[0xB8] == -1);
  CHECK(e4m3[0x7E] == 448);
  CHECK(std::isnan(e4m3[0x7F]));
  CHECK(std::isnan(e4m3[0xFF]));
  const auto& e5m2 = f8_values(DType::f8_e5m2);
  CHECK(e5m2[0x01] == std::ldexp(1.0F, -16));
  CHECK(e5m2[0x3C] == 1);
  CHECK(e5m2[0x7B] == 57344);
  CHECK(std::isinf(e5m2[0x7C]));
  CHECK(e5m2[0xFC] == -std::numeric_limits<float>::infinity());
  CHECK(std::isnan(e5m2[0x7D]));
  const auto& e4m3fnuz = f8_values(DType::f8_e4m3fnuz);
  CHECK(e4m3fnuz[0x7F] == 240);
  CHECK(e4m3fnuz[0x40] == 1);
  CHECK(e4m3fnuz[0x01] == std::ldexp(1.0F, -10));
  CHECK(std::isnan(e4m3fnuz[0x80]));
  const auto& e5m2fnuz = f8_values(DType::f8_e5m2fnuz);
  CHECK(e5m2fnuz[0x7F] == 57344);
  CHECK(e5m2fnuz[0x40] == 1);
  CHECK(std::isnan(e5m2fnuz[0x80]));
  for (const DType type : {DType::f8_e4m3, DType::f8_e5m2, DType::f8_e4m3fnuz, DType::f8_e5m2fnuz})
    for (std::size_t byte = 1; byte < 128; ++byte)  // ascending, odd, apart from NaN
      if (!std::isnan(f8_values(type)[byte])) {
        CHECK(f8_values(type)[byte] > f8_values(type)[byte - 1]);
        CHECK(f8_values(type)[byte + 128] == -f8_values(type)[byte]);
      }
}

TEST_CASE("halves, BF16 and F64 become the floats they are") {
  const auto one = [](DType type, std::span<const std::byte> bytes) {
    float value = 0;
    to_floats(type, bytes, {&value, 1});
    return value;
  };
  const auto half = [&](std::uint16_t bits) { return one(DType::f16, std::as_bytes(std::span(&bits, 1))); };
  CHECK(half(0x3C00) == 1);
  CHECK(half(0xC500) == -5);
  CHECK(half(0x7BFF) == 65504);
  CHECK(half(0x0001) == std::ldexp(1.0F, -24));
  CHECK(half(0x03FF) == std::ldexp(1023.0F, -24));
  CHECK(half(0x0400) == std::ldexp(1.0F, -14));
  CHECK(half(0xFC00) == -std::numeric_limits<float>::infinity());
  CHECK(std::isnan(half(0x7E00)));
  CHECK(std::isnan(half(0xFC01)));
  CHECK((half(0x8000) == 0 && std::signbit(half(0x8000))));
  CHECK(one(DType::bf16, bf16_bytes({-1.5F})) == -1.5F);
  CHECK(one(DType::f64, bytes_of(std::vector<double>{1.0 / 3})) == 1.0F / 3);
  CHECK(std::isinf(one(DType::f64, bytes_of(std::vector<double>{1e300}))));
}

TEST_CASE("scales by block: value * scale of its block, for any range") {
  const auto block128 = [](std::uint64_t cols) {
    return [cols](std::uint64_t, std::uint64_t r, std::uint64_t c) { return r / 128 * ((cols + 127) / 128) + c / 128; };
  };
  check_scaled({256, 256}, {2, 2}, kConfig, "_scale_inv", block128(256));
  check_scaled({200, 300}, {2, 3}, kConfig, "_scale_inv", block128(300));  // blocks that end early
  check_scaled({129, 1}, {2, 1}, kConfig, "_scale_inv", block128(1));
  check_scaled({200, 300}, {2, 3}, "", "_scale_inv", block128(300));  // 128 x 128 is what there is without a config
  check_scaled({1024, 700}, {8, 6}, kConfig, "_scale_inv", block128(700));  // longer than one piece
  check_scaled({6, 10}, {3, 4}, R"({"quantization_config":{"quant_method":"fp8","weight_block_size":[2,3]}})",
               "_scale_inv", [](std::uint64_t, std::uint64_t r, std::uint64_t c) { return r / 2 * 4 + c / 3; });
  check_scaled({6, 10}, {3, 4},
               R"({"quantization_config":{"config_groups":{"group_0":{"weights":{"block_structure":[2,3]}}}}})",
               "_scale", [](std::uint64_t, std::uint64_t r, std::uint64_t c) { return r / 2 * 4 + c / 3; });
  check_scaled({3, 5, 10}, {3, 3, 4}, R"({"text_config":{"quantization_config":{"weight_block_size":[2,3]}}})",
               "_scale_inv",
               [](std::uint64_t m, std::uint64_t r, std::uint64_t c) { return m * 12 + r / 2 * 4 + c / 3; });
}

TEST_CASE("scales by row, by matrix, in one") {
  const auto none = [](std::uint64_t, std::uint64_t, std::uint64_t) { return std::uint64_t{0}; };
  for (const std::vector<std::uint64_t>& shape : {std::vector<std::uint64_t>{}, {1}, {1, 1}})
    check_scaled({5, 7}, shape, kConfig, "_scale", none);
  check_scaled({9}, {1}, "", "_scale", none);
  check_scaled({3, 5, 7}, {1}, "", "_scale", none);
  const auto row = [](std::uint64_t m, std::uint64_t r, std::uint64_t) { return m * 5 + r; };
  check_scaled({5, 7}, {5, 1}, kConfig, "_scale", row);
  check_scaled({5, 7}, {5}, "", "_scale", row);
  check_scaled({3, 5, 7}, {3, 5, 1}, "", "_scale", row);
  check_scaled({3, 5, 7}, {3, 5}, "", "_scale", row);
  const auto matrix = [](std::uint64_t m, std::uint64_t, std::uint64_t) { return m; };
  check_scaled({3, 5, 7}, {3}, "", "_scale", matrix);
  check_scaled({3, 5, 7}, {3, 1, 1}, "", "_scale", matrix);
}

TEST_CASE("scales by column, by groups of columns, of a stack of experts") {
  const auto column = [](std::uint64_t m, std::uint64_t, std::uint64_t c) { return m * 7 + c; };
  check_scaled({5, 7}, {1, 7}, "", "_scale", column);
  check_scaled({3, 5, 7}, {3, 1, 7}, "", "_scale", column);
  check_scaled({3, 64}, {3, 2}, "", "_scale",
               [](std::uint64_t, std::uint64_t r, std::uint64_t c) { return r * 2 + c / 32; });
}

TEST_CASE("a scale may be called X.scale or X.scale_weight beside X.weight") {
  for (const char* name : {"m.scale", "m.scale_weight", "m.scales", "m.weight_scale", "m.weight_scale_inv"}) {
    const TempFolder folder;
    const auto reader = open(folder, {byte_tensor("m.weight", DType::f8_e5m2, {2, 2}, {0x3C, 0x3C, 0x3C, 0x3C}),
                                      f32_tensor(name, {2, 1}, {0.5F, 3})});
    CHECK(reader->catalogue().notes.empty());
    CHECK(floats(*reader, "m.weight", 0, 4) == std::vector<float>{0.5F, 0.5F, 3, 3});
  }
}

TEST_CASE("scales may be BF16, F16 or powers of two") {
  const TempFolder folder;
  const auto reader = open(folder, {byte_tensor("m.weight", DType::f8_e5m2, {2, 2}, {0x3C, 0x3C, 0x3C, 0x3C}),
                                    bf16_tensor("m.weight_scale", {2, 1}, {0.5F, 3})});
  CHECK(floats(*reader, "m.weight", 0, 4) == std::vector<float>{0.5F, 0.5F, 3, 3});
  const TempFolder powers;
  const auto micro =
      open(powers, {byte_tensor("m.weight", DType::f8_e5m2, {2, 40}, std::vector<std::uint8_t>(80, 0x3C)),
                    byte_tensor("m.weight_scale", DType::f8_e8m0, {2, 2}, {127, 126, 130, 0})});
  CHECK(floats(*micro, "m.weight", 31, 2) == std::vector<float>{1, 0.5F});
  CHECK(floats(*micro, "m.weight", 40, 1) == std::vector<float>{8});
  CHECK(floats(*micro, "m.weight", 79, 1) == std::vector<float>{0x1p-127F});
  CHECK(note_of(powers,
                {byte_tensor("m.weight", DType::f8_e4m3, {2, 32}, pattern(64)),
                 byte_tensor("m.weight_scale", DType::u8, {2, 1}, {127, 127})},
                "", "a scale of U8") == Fitness::unsupported);
}

TEST_CASE("a scale of 0 is right above zeros, and lost values above anything else") {
  const TempFolder folder;
  const auto reader = open(folder, {byte_tensor("m.weight", DType::f8_e4m3, {2, 3}, {0, 0x80, 0, 0x38, 0, 0x38}),
                                    f32_tensor("m.weight_scale", {2, 1}, {0, 2})});
  CHECK(floats(*reader, "m.weight", 0, 6) == std::vector<float>{0, -0.0F, 0, 2, 0, 2});
  const auto lost = open(folder, {byte_tensor("m.weight", DType::f8_e4m3, {2, 3}, {0x38, 0, 0, 0, 0, 0x38}),
                                  f32_tensor("m.weight_scale", {2, 1}, {2, 0})});
  const auto error = error_of([&] { (void)floats(*lost, "m.weight", 3, 3); });
  REQUIRE(error);
  CHECK_THAT(error->what(),
             Catch::Contains("tensor 'm.weight': element 5 is not 0, but its scale in 'm.weight_scale' is 0"));
}

TEST_CASE("a scale that is not finite or below 0 is named") {
  for (const float bad : {-1.0F, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    const TempFolder folder;
    const auto reader = open(folder, {byte_tensor("m.weight", DType::f8_e4m3, {3, 4}, pattern(12)),
                                      f32_tensor("m.weight_scale", {3}, {1, bad, 2})});
    CHECK(floats(*reader, "m.weight", 8, 4).size() == 4);  // needs only the last scale
    const auto error = error_of([&] { (void)floats(*reader, "m.weight", 3, 2); });
    REQUIRE(error);
    CHECK(error->code == Errc::malformed);
    CHECK_THAT(error->what(), Catch::Contains("tensor 'm.weight_scale': scale 1 is"));
  }
}

TEST_CASE("8-bit floats without a known scale are noted, unless the configuration says they are plain") {
  const TestTensor weight = byte_tensor("model.layers.0.mlp.up.weight", DType::f8_e4m3, {2, 3}, pattern(6));
  const auto note = [&](const std::string& config, const std::string& part = {}) {
    const TempFolder folder;
    return note_of(folder, {weight}, config, part);
  };
  for (const std::string config : {"", R"({"hidden_size":64})", "not json"})
    CHECK(note(config, "F8_E4M3 without a known scale") == Fitness::unscaled);
  CHECK(note(kConfig) == Fitness::unscaled);
  for (const char* name : {"model.layers.0.mlp.up", "mlp.up", "up", "mlp", "model.layers.0"})
    CHECK(!note(R"({"quantization_config":{"quant_method":"fp8","modules_to_not_convert":[")"s + name + "\"]}}"));
  CHECK(!note(R"({"quantization_config":{"quant_method":"fp8","ignored_layers":["model.layers.0.mlp.up"]}})"));
  CHECK(note(R"({"quantization_config":{"quant_method":"fp8","ignored_layers":["", "layers.0.mlp.u"]}})") ==
        Fitness::unscaled);
  for (const char* block : {"[0,128]", "[128]", "[-1,1.5]"}) {
    const auto error = error_of([&] { (void)note(R"({"quantization_config":{"weight_block_size":)"s + block + "}}"); });
    REQUIRE(error);
    CHECK(error->code == Errc::malformed);
    CHECK_THAT(error->what(), Catch::Contains("block size"));
  }
  const TempFolder folder;
  const auto reader = open(folder, {f32_tensor("a.weight", {1}, {1})}, "not json");
  REQUIRE(reader->catalogue().warnings.size() == 1);
  CHECK_THAT(reader->catalogue().warnings[0], Catch::Contains("what it says of the weights is not known"));
}

TEST_CASE("scales of the wrong shape, and two of them, are noted") {
  const TempFolder folder;
  const TestTensor weight = byte_tensor("m.weight", DType::f8_e4m3, {200, 300}, pattern(60000));
  for (const std::vector<std::uint64_t>& shape :
       {std::vector<std::uint64_t>{2, 2}, {3, 2}, {6}, {300}, {200, 1, 1}, {2}, {0}, {200, 300}}) {
    std::uint64_t count = 1;
    for (const std::uint64_t dim : shape) count *= dim;
    CHECK(note_of(folder, {weight, f32_tensor("m.weight_scale_inv", shape, std::vector<float>(count, 1))}, kConfig,
                  "tensor 'm.weight_scale_inv': found shape") == Fitness::malformed);
  }
  CHECK(note_of(folder,
                {weight, f32_tensor("m.weight_scale_inv", {2, 3}, std::vector<float>(6, 1)),
                 f32_tensor("m.weight_scale", {}, {1})},
                kConfig, "found two scales") == Fitness::unsupported);
  CHECK(note_of(folder, {weight, f32_tensor("m.weight_scale", {}, {1}), f32_tensor("m.weight_scale_2", {}, {1})},
                kConfig, "scaled by 'm.weight_scale_2' in a way that is not supported") == Fitness::unsupported);
  CHECK(!note_of(folder,
                 {byte_tensor("m.weight", DType::f8_e4m3, {0, 300}, {}), f32_tensor("m.weight_scale_inv", {0, 3}, {})},
                 kConfig));
}
