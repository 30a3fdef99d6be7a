#include <catch2/catch.hpp>
#include <cmath>
#include <random>

#include "importance_names.hpp"
#include "lmq/io/importance_file.hpp"
#include "make_imatrix.hpp"

using namespace lmq;
using namespace lmq::test;

namespace {
constexpr std::size_t kColumns = 6;

TensorInfo weight(std::string name, std::vector<std::uint64_t> shape) {
  TensorInfo info;
  info.name = std::move(name);
  info.shape = std::move(shape);
  return info;
}

/// A model with dense layers, experts of their own and experts in a stack, and one with transposed ones.
Catalogue checkpoint() {
  Catalogue catalogue;
  catalogue.tensors = {weight("model.embed_tokens.weight", {50, kColumns}),
                       weight("model.layers.0.input_layernorm.weight", {kColumns}),
                       weight("model.layers.0.mlp.experts.0.up_proj.weight", {4, kColumns}),
                       weight("model.layers.0.mlp.experts.1.up_proj.weight", {4, kColumns}),
                       weight("model.layers.0.mlp.experts.2.up_proj.weight", {4, kColumns}),
                       weight("model.layers.0.self_attn.k_proj.weight", {3, kColumns}),
                       weight("model.layers.0.self_attn.q_proj.weight", {8, kColumns}),
                       weight("model.layers.1.mlp.experts.down_proj", {3, 5, kColumns}),
                       weight("model.layers.1.mlp.experts.gate_up_proj", {3, kColumns, 10}),
                       weight("transformer.h.2.attn.c_proj.weight", {kColumns, 9})};
  return catalogue;
}

std::vector<float> ramp(std::size_t count, float from) {
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = from + 0.25F * static_cast<float>(i);
  return values;
}

std::vector<TestMatrix> entries() {
  return {{"blk.0.attn_q.weight", ramp(kColumns, 1), {100}},
          {"blk.0.ffn_up_exps.weight", ramp(3 * kColumns, 2), {64, 0, 16}},
          {"blk.1.ffn_down_exps.weight", ramp(3 * kColumns, 3), {8, 8, 0}},
          {"blk.1.ffn_gate_exps.weight", ramp(3 * kColumns, 4), {8, 8, 8}},
          {"blk.2.attn_output.weight", ramp(kColumns, 5), {100}},
          {"blk.7.attn_q.weight", ramp(kColumns, 6), {100}}};
}

std::vector<float> slice(const std::vector<float>& values, std::size_t index) {
  return {values.begin() + static_cast<std::ptrdiff_t>(index * kColumns),
          values.begin() + static_cast<std::ptrdiff_t>((index + 1) * kColumns)};
}

std::vector<float> columns_of(const ImportanceFile& file, const std::string& name) {
  const ImportanceEntry* entry = file.find(name);
  REQUIRE(entry != nullptr);
  ImportanceWindow window;
  file.read(*entry, 0, entry->info.length, window);
  return window.values;
}

void check_close(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) CHECK(a[i] == Approx(b[i]).epsilon(1e-6));
}

/// Neither crashes nor accepts in silence what it cannot read: an error of ours, or values that are finite and >= 0.
void survives(const std::filesystem::path& path, const Catalogue& model) {
  try {
    const ImportanceFile file(path, model);
    for (const ImportanceEntry& entry : file.entries())
      REQUIRE((std::isfinite(entry.info.mean) && entry.info.mean >= 0));
  } catch (const Error& error) {
    REQUIRE((error.code == Errc::malformed || error.code == Errc::unsupported));
  }
}
}  // namespace

TEST_CASE("Hugging Face names have the names that llama.cpp gives them") {
  const auto first = [](const char* name) {
    const auto names = gguf_names(name);
    return names.empty() ? GgufName{} : names.front();
  };
  CHECK(first("model.layers.12.self_attn.q_proj.weight") == GgufName{"blk.12.attn_q.weight", -1});
  CHECK(first("model.language_model.layers.3.mlp.down_proj.weight") == GgufName{"blk.3.ffn_down.weight", -1});
  CHECK(first("transformer.h.0.attn.c_attn.weight") == GgufName{"blk.0.attn_qkv.weight", -1});
  CHECK(first("gpt_neox.layers.5.mlp.dense_h_to_4h.weight") == GgufName{"blk.5.ffn_up.weight", -1});
  CHECK(first("model.layers.1.block_sparse_moe.experts.7.w2.weight") == GgufName{"blk.1.ffn_down_exps.weight", 7});
  CHECK(gguf_names("model.layers.1.mlp.experts.7.up_proj.weight")[1] == GgufName{"blk.1.ffn_up.7.weight", -1});
  CHECK(first("model.layers.1.mlp.experts.gate_up_proj") == GgufName{"blk.1.ffn_gate_exps.weight", -1});
  CHECK(first("model.layers.1.mlp.shared_experts.up_proj.weight") == GgufName{"blk.1.ffn_up_shexp.weight", -1});
  CHECK(first("model.layers.9.self_attn.kv_a_proj_with_mqa.weight") == GgufName{"blk.9.attn_kv_a_mqa.weight", -1});
  CHECK(first("lm_head.weight") == GgufName{"output.weight", -1});
  for (const char* name : {"", ".", "layers", "layers.1", "model.layers.x.self_attn.q_proj.weight", "a.b.c",
                           "model.layers.99999999999.self_attn.q_proj.weight", "model.layers.1.other.weight"})
    CHECK(gguf_names(name).empty());
}

TEST_CASE("a part alone is told by its model type, or by how it calls its layers") {
  const auto taken = [](std::string_view name, const ModelConfig& config) {
    const std::vector<std::string_view> names{name};
    return TextDecoder(names, config).has(name) ? 1 : 0;
  };
  const auto typed = [&](const char* type, std::string_view name, bool decoder_only = false) {
    ModelConfig config;
    config.model_types = {type}, config.decoder_only = decoder_only;
    return taken(name, config);
  };
  for (const char* type : {"siglip_vision_model", "qwen2_5_vl_vision", "clip_vision_model", "dinov2", "hubert"})
    for (const char* name : {"encoder.layers.0.self_attn.q_proj.weight", "layers.0.self_attn.q_proj.weight",
                             "blocks.0.mlp.gate_proj.weight"})
      CHECK(typed(type, name) == 0);
  CHECK(taken("encoder.layers.0.self_attn.q_proj.weight", {}) == 0);
  CHECK(taken("encoder.layer.0.attention.self.query.weight", {}) == 1);
  for (const char* type : {"whisper", "bart", "m2m_100"}) {
    CHECK(typed(type, "model.decoder.layers.0.self_attn.q_proj.weight") == 0);
    CHECK(typed(type, "model.decoder.layers.0.self_attn.q_proj.weight", true) == 1);
  }
  for (const char* type : {"opt", "llama", "llava", "unheard_of"})
    CHECK(typed(type, "model.decoder.layers.0.self_attn.q_proj.weight") == 1);
  ModelConfig parts;
  parts.model_types = {"qwen2_5_vl", "qwen2_5_vl_text", "qwen2_5_vl_vision"};
  CHECK(taken("model.layers.0.self_attn.q_proj.weight", parts) == 1);
}

TEST_CASE("blocks of a text decoder are told from those of other parts") {
  const auto taken = [](std::vector<std::string_view> names, const ModelConfig& config = {}) {
    const TextDecoder decoder(names, config);
    std::vector<std::string_view> has;
    for (const std::string_view name : names)
      if (decoder.has(name)) has.push_back(name);
    return std::pair(has, decoder.candidates());
  };
  using Names = std::vector<std::string_view>;
  const std::string_view text = "model.language_model.layers.0.self_attn.q_proj.weight";
  for (const std::string_view other :
       {"vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight", "visual.blocks.0.mlp.gate_proj.weight",
        "model.vision_tower.encoder.layers.0.mlp.fc1.weight", "mtp.layers.0.self_attn.q_proj.weight",
        "audio_tower.layers.0.self_attn.q_proj.weight", "talker.model.layers.0.self_attn.q_proj.weight",
        "encoder.layers.0.self_attn.q_proj.weight", "something.layers.0.self_attn.q_proj.weight"})
    CHECK(taken({text, other, "lm_head.weight"}) ==
          std::pair(Names{text, "lm_head.weight"}, std::vector<std::string>{}));
  // Alone, an unknown part is the decoder and an encoder is the model; a tower is never one.
  CHECK(taken({"something.layers.0.self_attn.q_proj.weight"}).first.size() == 1);
  CHECK(taken({"bert.encoder.layer.0.attention.self.query.weight"}).first.size() == 1);
  CHECK(taken({"transformer.encoder.layers.0.self_attention.dense.weight"}).first.size() == 1);
  CHECK(taken({"vision_model.encoder.layers.0.self_attn.q_proj.weight"}).first.empty());
  // Encoder-decoders have names of their own in llama.cpp.
  CHECK(taken({"model.decoder.layers.0.self_attn.q_proj.weight", "model.encoder.layers.0.self_attn.q_proj.weight"})
            .first.empty());
  CHECK(taken({"model.decoder.layers.0.self_attn.q_proj.weight"}).first.size() == 1);
  ModelConfig both;
  both.encoder_decoder = true;
  CHECK(taken({"model.decoder.layers.0.self_attn.q_proj.weight"}, both).first.empty());
  // The decoder of a language model in a model of several parts has no encoder of its own.
  CHECK(taken({"language_model.model.decoder.layers.0.self_attn.q_proj.weight",
               "qformer.encoder.layer.0.attention.self.query.weight",
               "vision_model.encoder.layers.0.self_attn.q_proj.weight"})
            .first.size() == 1);
  // Two that may be it.
  CHECK(taken({"model.layers.0.self_attn.q_proj.weight", "language_model.layers.0.self_attn.q_proj.weight"}).second ==
        std::vector<std::string>{"language_model", "model"});
}

TEST_CASE("the inputs of a square matrix are told by the kind of tensor, or asked for") {
  const TempFolder folder;
  const std::uint64_t n = kColumns;
  const auto kind = [&](std::vector<TensorInfo> tensors, const std::string& entry, std::size_t matrices,
                        const std::string& config = {}) -> std::string {
    const std::string wanted = tensors.back().name;
    Catalogue model;
    std::ranges::sort(tensors, {}, &TensorInfo::name);
    model.tensors = std::move(tensors);
    if (!config.empty()) model.folder = folder.path(), write_file(folder / "config.json", config);
    write_file(folder / "i", gguf_imatrix({{entry, ramp(matrices * n, 1), std::vector<float>(matrices, 8)}}));
    try {
      const ImportanceFile file(folder / "i", model);
      REQUIRE(file.find(wanted) != nullptr);
      return file.find(wanted)->info.kind == ImportanceKind::rows ? "rows" : "columns";
    } catch (const Error& error) {
      return std::to_string(static_cast<int>(error.code)) + " " + error.what();
    }
  };
  const TensorInfo square = weight("h.0.attn.c_proj.weight", {n, n});
  const char* const out = "blk.0.attn_output.weight";
  CHECK(kind({weight("h.0.mlp.c_fc.weight", {n, 4 * n}), square}, out, 1) == "rows");
  CHECK(kind({weight("h.0.mlp.c_fc.weight", {4 * n, n}), square}, out, 1) == "columns");
  CHECK(kind({weight("h.0.attn.c_attn.weight", {n, 3 * n}), square}, out, 1) == "rows");
  CHECK_THAT(kind({square}, out, 1), Catch::Contains("69 ") && Catch::Contains("nothing says which axis"));
  CHECK(kind({square}, out, 1, R"({"model_type":"gpt2"})") == "rows");
  CHECK(kind({square}, out, 1, R"({"model_type":"gpt_bigcode"})") == "columns");
  CHECK(kind({weight("model.layers.0.self_attn.o_proj.weight", {n, n})}, out, 1) == "columns");
  CHECK_THAT(kind({weight("model.layers.0.self_attn.o_proj.weight", {n, 2 * n})}, out, 1),
             Catch::Contains("another model"));

  const TensorInfo stack = weight("model.layers.0.mlp.experts.down_proj", {3, n, n});
  const auto both = [&](std::uint64_t rows, std::uint64_t cols) {
    return weight("model.layers.0.mlp.experts.gate_up_proj", {3, rows, cols});
  };
  const char* const down = "blk.0.ffn_down_exps.weight";
  CHECK(kind({both(n, 2 * n), stack}, down, 3) == "rows");
  CHECK(kind({both(2 * n, n), stack}, down, 3) == "columns");
  CHECK_THAT(kind({stack}, down, 3), Catch::Contains("nothing says which axis"));
  CHECK(kind({stack}, down, 3, R"({"model_type":"x","text_config":{"model_type":"llama4_text"}})") == "rows");
}

TEST_CASE("tensors that importance is not wanted for are never compared with the file") {
  const TempFolder folder;
  write_file(folder / "i", gguf_imatrix(entries()));
  Catalogue model = checkpoint();
  model.tensors[6].shape = {8, kColumns + 3};  // q_proj of another width
  CHECK(error_of([&] { ImportanceFile(folder / "i", model); }));
  const ImportanceFile file(folder / "i", model, {.wanted = [](std::size_t tensor) { return tensor != 6; }});
  CHECK(file.find("model.layers.0.self_attn.q_proj.weight") == nullptr);
  CHECK(file.find("model.layers.1.mlp.experts.down_proj") != nullptr);
}

// More than 40 lines: the same checks of two formats, tensor by tensor.
TEST_CASE("an imatrix of either format gives mean squared inputs under the checkpoint's names") {
  const TempFolder folder;
  write_file(folder / "new", gguf_imatrix(entries()));
  write_file(folder / "old", binary_imatrix(entries(), 12));
  write_file(folder / "bare", binary_imatrix(entries(), 1, false));
  for (const char* name : {"new", "old", "bare"}) {
    INFO(name);
    const ImportanceFile file(folder / name, checkpoint());
    CHECK(file.format() == (std::string(name) == "new" ? "GGUF imatrix" : "imatrix"));
    CHECK(file.unused() == std::vector<std::string>{"blk.7.attn_q.weight"});
    CHECK(file.find("model.layers.0.self_attn.k_proj.weight") == nullptr);
    check_close(columns_of(file, "model.layers.0.self_attn.q_proj.weight"), ramp(kColumns, 1));
    const auto up = ramp(3 * kColumns, 2);
    check_close(columns_of(file, "model.layers.0.mlp.experts.0.up_proj.weight"), slice(up, 0));
    check_close(columns_of(file, "model.layers.0.mlp.experts.2.up_proj.weight"), slice(up, 2));
    // Expert 1 was never reached: the pooled mean, each sibling by its samples (the older format does not tell how
    // many).
    const double first = std::string(name) == "new" ? 64.0 / 80 : 0.5;
    std::vector<float> pooled(kColumns);
    for (std::size_t i = 0; i < kColumns; ++i)
      pooled[i] = static_cast<float>(first * up[i] + (1 - first) * up[2 * kColumns + i]);
    check_close(columns_of(file, "model.layers.0.mlp.experts.1.up_proj.weight"), pooled);
    CHECK(file.find("model.layers.0.mlp.experts.1.up_proj.weight")->pooled == std::vector<std::uint32_t>{1});
    CHECK(file.find("model.layers.0.mlp.experts.0.up_proj.weight")->pooled.empty());
    const ImportanceEntry& stack = *file.find("model.layers.1.mlp.experts.down_proj");
    CHECK(stack.info.block_rows == 5);
    CHECK(stack.pooled == std::vector<std::uint32_t>{2});
    ImportanceWindow window;
    file.read(stack, 5 * kColumns - 1, 2 + 5 * kColumns, window);  // the end of expert 0, all of 1, the start of 2
    CHECK(window.values.size() == 3 * kColumns);
    CHECK(window.importance.first_row == 4);
    check_close(slice(window.values, 1), slice(ramp(3 * kColumns, 3), 1));
    // Stored [inputs, outputs]: the inputs are rows.
    const ImportanceEntry& transposed = *file.find("model.layers.1.mlp.experts.gate_up_proj");
    CHECK(transposed.info.kind == ImportanceKind::rows);
    CHECK(transposed.info.length == 10);
    file.read(transposed, 10 * kColumns, 20, window);
    check_close(window.rows, {ramp(3 * kColumns, 4)[kColumns], ramp(3 * kColumns, 4)[kColumns + 1]});
    CHECK(file.find("transformer.h.2.attn.c_proj.weight")->info.kind == ImportanceKind::rows);
    const ImportanceFile there = ImportanceFile::from_bytes(file.to_bytes());
    check_close(columns_of(there, "model.layers.0.mlp.experts.1.up_proj.weight"), pooled);
  }
}

TEST_CASE("an entry without a sample is reported, not used") {
  const TempFolder folder;
  auto some = entries();
  some[1].counts = {0, 0, 0};
  write_file(folder / "i", gguf_imatrix(some));
  const ImportanceFile file(folder / "i", checkpoint());
  CHECK(file.find("model.layers.0.mlp.experts.1.up_proj.weight") == nullptr);
  CHECK(file.unknown().size() == 3);
  CHECK(file.unknown()[0] == "model.layers.0.mlp.experts.0.up_proj.weight");
}

TEST_CASE("the imatrix of another model is refused with what was found and expected") {
  const TempFolder folder;
  const auto refused = [&](const std::vector<std::byte>& bytes, const char* words) {
    write_file(folder / "i", bytes);
    const auto error = error_of([&] { ImportanceFile(folder / "i", checkpoint()); });
    REQUIRE(error);
    CHECK(error->code == Errc::malformed);
    CHECK_THAT(error->what(), Catch::Contains(words));
  };
  for (const bool gguf : {true, false}) {
    const auto make = [&](const std::vector<TestMatrix>& list) {
      return gguf ? gguf_imatrix(list) : binary_imatrix(list, 3);
    };
    refused(
        make({{"blk.0.attn_q.weight", ramp(kColumns + 1, 1), {100}}}),
        "entry 'blk.0.attn_q.weight' has a matrix of 7 columns, but 'model.layers.0.self_attn.q_proj.weight' has shape "
        "[8, 6]: is it the imatrix of another model?");
    refused(make({{"blk.0.ffn_up_exps.weight", ramp(2 * kColumns, 1), {1, 1}}}), "blk.0.ffn_up_exps.weight");
    refused(
        make({{"blk.9.attn_q.weight", ramp(kColumns, 1), {100}}}),
        "nothing in it belongs to the checkpoint: found 1 tensor such as 'blk.9.attn_q.weight', expected for example "
        "'model.embed_tokens.weight' as 'token_embd.weight'");
  }
  auto negative = entries();
  negative[0].values[3] = -2;
  refused(gguf_imatrix(negative), "tensor 'blk.0.attn_q.weight': importance 3 is -200");
  refused(binary_imatrix(negative, 2), "tensor 'blk.0.attn_q.weight': importance 3 is -4");
  write_file(folder / "i", gguf_imatrix(entries(), "model"));
  const auto model = error_of([&] { ImportanceFile(folder / "i", checkpoint()); });
  REQUIRE(model);
  CHECK(model->code == Errc::unsupported);
}

TEST_CASE("every truncation of an imatrix is refused, and no changed byte does harm", "[slow]") {
  const TempFolder folder;
  const Catalogue model = checkpoint();
  std::mt19937 random(7);
  for (const bool gguf : {true, false}) {
    const std::vector<TestMatrix> two{entries()[0], entries()[2]};  // dense, and experts some of which are unknown
    const auto whole = gguf ? gguf_imatrix(two) : binary_imatrix(two, 12);
    // What the format leaves open: padding at the end of GGUF, the trailer of the older form.
    const std::size_t needed = gguf ? whole.size() - 28 : whole.size() - 23;
    for (std::size_t length = 0; length < whole.size(); ++length) {
      write_file(folder / "i", std::span(whole).first(length));
      INFO((gguf ? "GGUF, " : "binary, ") << length << " of " << whole.size() << " bytes");
      const auto error = error_of([&] { ImportanceFile(folder / "i", model); });
      if (length < needed) REQUIRE(error);
      if (error) CHECK((error->code == Errc::malformed || error->code == Errc::unsupported));
    }
    auto bytes = whole;
    bytes.push_back(std::byte{0});
    if (!gguf) {
      write_file(folder / "i", bytes);
      CHECK_THAT(error_of([&] { ImportanceFile(folder / "i", model); })->what(),
                 Catch::Contains("1 bytes behind the end"));
    }
    for (std::size_t at = 0; at < whole.size(); ++at) {
      bytes = whole;
      bytes[at] ^= std::byte{static_cast<unsigned char>(1u << random() % 8)};
      write_file(folder / "i", bytes);
      INFO((gguf ? "GGUF, byte " : "binary, byte ") << at);
      survives(folder / "i", model);
      bytes[at] = std::byte{0xFF};
      write_file(folder / "i", bytes);
      if (at % 3 == 0) survives(folder / "i", model);
    }
  }
  for (int round = 0; round < 500; ++round) {
    std::vector<std::byte> bytes(random() % 200);
    for (std::byte& byte : bytes) byte = std::byte{static_cast<unsigned char>(random() % 4 == 0 ? random() : 0)};
    if (round % 2 == 0 && bytes.size() > 8) std::memcpy(bytes.data(), "GGUF\3\0\0", 8);
    write_file(folder / "i", bytes);
    survives(folder / "i", model);
  }
}

TEST_CASE("counts of a GGUF header that cannot be are refused before anything is allocated") {
  const TempFolder folder;
  const auto refused = [&](std::uint64_t tensors, std::uint64_t pairs, std::string_view rest) {
    ByteWriter out;
    out.raw(std::as_bytes(std::span(std::string_view("GGUF"))));
    out.le(std::uint32_t{3}), out.le(tensors), out.le(pairs);
    out.raw(std::as_bytes(std::span(rest)));
    write_file(folder / "i", out.bytes());
    const auto error = error_of([&] { ImportanceFile(folder / "i", checkpoint()); });
    REQUIRE(error);
    CHECK(error->code == Errc::malformed);
  };
  constexpr std::uint64_t kHuge = std::uint64_t{1} << 60;
  refused(kHuge, 0, "");
  refused(0, kHuge, "");
  refused(~std::uint64_t{0}, ~std::uint64_t{0}, "abcdefgh");
  const auto pair = [](std::string_view tail) {
    ByteWriter out;
    put_text(out, "k", true);
    out.raw(std::as_bytes(std::span(tail)));
    const auto bytes = out.take();
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  };
  using namespace std::string_view_literals;
  refused(0, 1, pair("\x08\0\0\0\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"sv));  // a text of 2^64 - 1 bytes
  refused(0, 1, pair("\x09\0\0\0\x09\0\0\0\x01\0\0\0\0\0\0\0"sv));      // an array of arrays
  refused(0, 1, pair("\x09\0\0\0\x0D\0\0\0\x01\0\0\0\0\0\0\0"sv));      // elements of type 13
  refused(0, 1, pair("\x09\0\0\0\x0C\0\0\0\0\0\0\0\0\0\0\x20"sv));      // 2^61 numbers
  refused(0, 1, pair("\x07\0\0\0\x02"sv));                              // true, false or 2
  refused(0, 1, pair("\x0D\0\0\0\0\0\0\0"sv));                          // a value of type 13
}
