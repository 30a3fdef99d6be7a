#include "companions.hpp"

#include <catch2/catch.hpp>
#include <set>

#include "lmq/io/reader.hpp"
#include "make_safetensors.hpp"

// Weights that are quantized already, as tools write them: what lies beside them is no weight.
using namespace lmq;
using namespace lmq::test;

namespace {

TestTensor zeros(std::string name, DType type, std::vector<std::uint64_t> shape) {
  std::uint64_t count = 1;
  for (const std::uint64_t dim : shape) count *= dim;
  return {std::move(name), type, std::move(shape), std::vector<std::byte>(count * bits(type) / 8)};
}

/// Names of the tensors noted as companions.
std::set<std::string> companions(const Catalogue& catalogue) {
  std::set<std::string> names;
  for (const TensorNote& note : catalogue.notes)
    if (note.fitness == Fitness::companion) names.insert(catalogue.tensors[note.tensor].name);
  return names;
}

struct Layout {
  const char* tool;
  std::vector<TestTensor> packed;  ///< all of these are kept
};

std::vector<Layout> layouts() {
  using enum DType;
  return {
      {"GPTQ",
       {zeros("p.qweight", i32, {64, 256}), zeros("p.qzeros", i32, {16, 32}), zeros("p.scales", f16, {16, 256}),
        zeros("p.zeros", f16, {16, 256})}},
      {"compressed-tensors",
       {zeros("p.weight_packed", i32, {64, 8}), zeros("p.weight_scale", bf16, {64, 16}),
        zeros("p.weight_shape", i64, {2}), zeros("p.weight_zero_point", f16, {64, 16})}},
      {"8-bit integers", {zeros("p.weight", i8, {64, 64}), zeros("p.weight_scale", bf16, {64, 1})}},
      {"bitsandbytes int8", {zeros("p.weight", i8, {64, 64}), zeros("p.SCB", f32, {64})}},
      {"bitsandbytes 4-bit",
       {zeros("p.weight", u8, {2048, 1}), zeros("p.weight.absmax", f32, {64}), zeros("p.weight.quant_map", f32, {16}),
        zeros("p.weight.nested_absmax", f32, {8}), zeros("p.weight.quant_state.bitsandbytes__nf4", u8, {90})}},
      {"MLX", {zeros("p.weight", u32, {64, 8}), zeros("p.scales", bf16, {64, 8}), zeros("p.biases", bf16, {64, 8})}},
      {"NVFP4",
       {zeros("p.weight", u8, {64, 32}), zeros("p.weight_scale", f8_e4m3, {64, 4}), zeros("p.weight_scale_2", f32, {}),
        zeros("p.input_scale", f32, {})}},
      {"MXFP4",
       {zeros("p.experts.gate_up_proj_blocks", u8, {4, 64, 8, 16}),
        zeros("p.experts.gate_up_proj_scales", bf16, {4, 64, 8})}},
      {"FP4 with powers of two", {zeros("p.w1.weight", i8, {64, 32}), zeros("p.w1.scale", f8_e8m0, {64, 2})}},
      {"HQQ", {zeros("p.W_q", u8, {64, 64}), zeros("p.scale", f16, {64, 64}), zeros("p.zero", f16, {64, 64})}},
      {"quanto",
       {zeros("p.weight._data", i8, {64, 64}), zeros("p.weight._scale", f32, {64, 1}),
        zeros("p.input_scale", f32, {})}},
      {"AQLM",
       {zeros("p.codes", i16, {64, 8, 2}), zeros("p.codebooks", f16, {2, 256, 1, 8}),
        zeros("p.scales", f16, {64, 1, 1, 1})}},
      {"EXL2",
       {zeros("p.q_weight", i32, {64, 64}), zeros("p.q_scale", i32, {64, 8}), zeros("p.q_scale_max", f16, {64})}},
  };
}

}  // namespace

TEST_CASE("what lies beside packed weights is kept with them, whichever tool made them") {
  const std::vector<TestTensor> others{zeros("model.norm.weight", DType::bf16, {64}),
                                       zeros("q.weight", DType::bf16, {64, 64}),
                                       zeros("q.scale", DType::bf16, {64, 64}), zeros("p.bias", DType::f16, {256})};
  for (const Layout& layout : layouts()) {
    INFO(layout.tool);
    const TempFolder folder;
    std::vector<TestTensor> tensors = layout.packed;
    std::set<std::string> expected;
    for (const TestTensor& tensor : tensors) expected.insert(tensor.name);
    tensors.insert(tensors.end(), others.begin(), others.end());
    make_safetensors(folder / "model.safetensors", tensors);
    const auto reader = open_reader(folder.path());
    CHECK(companions(reader->catalogue()) == expected);
    REQUIRE(reader->catalogue().warnings.size() == 1);
    CHECK_THAT(reader->catalogue().warnings[0],
               Catch::Contains("1 weight is quantized already") && Catch::Contains("start from the unquantized model"));
  }
}

TEST_CASE("the method is told from config.json, wherever nested, and from hf_quant_config.json") {
  for (const auto& [file, text] :
       {std::pair{"config.json", R"({"text_config":{"quantization_config":{"quant_method":"gptq"}}})"},
        std::pair{"hf_quant_config.json", R"({"quantization":{"quant_algo":"NVFP4"}})"}}) {
    const TempFolder folder;
    make_safetensors(folder / "model.safetensors",
                     {zeros("p.weight", DType::u8, {64, 32}), zeros("p.weight_scale", DType::f8_e4m3, {64, 4})});
    write_file(folder / file, std::string_view(text));
    const auto reader = open_reader(folder.path());
    CHECK_THAT(reader->catalogue().warnings.at(0),
               Catch::Contains(file) && (Catch::Contains("says gptq") || Catch::Contains("says NVFP4")));
  }
}

TEST_CASE("names alone make no companion: there must be a packed weight beside it") {
  const TempFolder folder;
  make_safetensors(folder / "model.safetensors",
                   {zeros("a.scales", DType::f16, {64, 64}), zeros("a.weight", DType::f16, {64, 64}),
                    zeros("b.position_ids", DType::i64, {1, 64}), zeros("b.scale", DType::f16, {64, 64}),
                    zeros("c.d.weight", DType::i32, {64, 64}), zeros("c.scale", DType::f16, {64, 64}),
                    zeros("e.experts.down_proj_blocks", DType::u8, {4, 4}),
                    zeros("e.experts.gate_up_proj_scales", DType::f16, {64, 64})});
  const auto reader = open_reader(folder.path());
  CHECK(companions(reader->catalogue()).empty());
  CHECK(reader->catalogue().warnings.empty());
}

TEST_CASE("the scale of inputs beside a scaled 8-bit weight is kept, the weight's own is folded") {
  const TempFolder folder;
  make_safetensors(folder / "model.safetensors",
                   {zeros("a.weight", DType::f8_e4m3, {64, 64}), zeros("a.weight_scale", DType::f32, {}),
                    zeros("a.input_scale", DType::f32, {})});
  const auto reader = open_reader(folder.path());
  CHECK(companions(reader->catalogue()) == std::set<std::string>{"a.input_scale"});
  CHECK(reader->catalogue().tensors.at(1).scale == 2);
  CHECK(reader->catalogue().warnings.empty());
}
