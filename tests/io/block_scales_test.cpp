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
int code_of(const TempFolder& folder, const std::vector<TestTensor>& tensors, const std::string& config = {},
            const std::string& part = {}) {
  const auto error = error_of([&] { (void)open(folder, tensors, config); });
  if (error) CHECK_THAT(error->what(), Catch::Contains(part));
  return error ? static_cast<int>(error->code) : 0;
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

TEST_CASE("scales may be BF16 or F16") {
  const TempFolder folder;
  const auto reader = open(folder, {byte_tensor("m.weight", DType::f8_e5m2, {2, 2}, {0x3C, 0x3C, 0x3C, 0x3C}),
                                    bf16_tensor("m.weight_scale", {2, 1}, {0.5F, 3})});
  CHECK(floats(*reader, "m.weight", 0, 4) == std::vector<float>{0.5F, 0.5F, 3, 3});
  CHECK(code_of(folder,
                {byte_tensor("m.weight", DType::f8_e4m3, {2, 32}, pattern(64)),
                 byte_tensor("m.weight_scale", DType::f8_e8m0, {2, 1}, {127, 127})},
                "", "a scale of F8_E8M0") == 69);
}

TEST_CASE("a scale that is not finite and positive is named") {
  for (const float bad :
       {0.0F, -1.0F, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), -0.0F}) {
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

TEST_CASE("8-bit floats that lost their scales are refused, plain ones are not") {
  const TestTensor weight = byte_tensor("model.layers.0.mlp.up.weight", DType::f8_e4m3, {2, 3}, pattern(6));
  const auto code = [&](const std::string& config, const std::string& part = {}) {
    const TempFolder folder;
    return code_of(folder, {weight}, config, part);
  };
  CHECK(code("") == 0);
  CHECK(code(R"({"hidden_size":64})") == 0);
  CHECK(code(kConfig, "without a scale") == 65);
  CHECK(code(R"({"quantization_config":{"quant_method":"fp8","modules_to_not_convert":["lm_head"]}})") == 65);
  for (const char* name : {"model.layers.0.mlp.up", "mlp.up", "up", "mlp", "model.layers.0"})
    CHECK(code(R"({"quantization_config":{"quant_method":"fp8","modules_to_not_convert":[")"s + name + "\"]}}") == 0);
  CHECK(code(R"({"quantization_config":{"quant_method":"fp8","ignored_layers":["model.layers.0.mlp.up"]}})") == 0);
  CHECK(code(R"({"quantization_config":{"quant_method":"fp8","ignored_layers":["", "layers.0.mlp.u"]}})") == 65);
  CHECK(code("not json", "found no JSON object") == 65);
  CHECK(code(R"({"quantization_config":{"weight_block_size":[0,128]}})", "block size") == 65);
  CHECK(code(R"({"quantization_config":{"weight_block_size":[128]}})", "block size") == 65);
  CHECK(code(R"({"quantization_config":{"weight_block_size":[-1,1.5]}})", "block size") == 65);
  const TempFolder folder;  // the config matters to 8-bit floats only
  CHECK(code_of(folder, {f32_tensor("a.weight", {1}, {1})}, "not json") == 0);
}

TEST_CASE("scales of the wrong shape are refused") {
  const TempFolder folder;
  const TestTensor weight = byte_tensor("m.weight", DType::f8_e4m3, {200, 300}, pattern(60000));
  for (const std::vector<std::uint64_t>& shape :
       {std::vector<std::uint64_t>{2, 2}, {3, 2}, {6}, {300}, {1, 300}, {200, 1, 1}, {2}, {0}, {200, 300}}) {
    std::uint64_t count = 1;
    for (const std::uint64_t dim : shape) count *= dim;
    CHECK(code_of(folder, {weight, f32_tensor("m.weight_scale_inv", shape, std::vector<float>(count, 1))}, kConfig,
                  "tensor 'm.weight_scale_inv': found shape") == 65);
  }
  CHECK(code_of(folder,
                {weight, f32_tensor("m.weight_scale_inv", {2, 3}, std::vector<float>(6, 1)),
                 f32_tensor("m.weight_scale", {}, {1})},
                kConfig, "found both") == 65);
  CHECK(code_of(folder,
                {byte_tensor("m.weight", DType::f8_e4m3, {0, 300}, {}), f32_tensor("m.weight_scale_inv", {0, 3}, {})},
                kConfig) == 0);
}
