#include "model_config.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <span>
#include <system_error>

#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io/json_text.hpp"

namespace lmq {
namespace {

using nlohmann::json;

constexpr std::uint64_t kConfigLimit = std::uint64_t{16} << 20;
/// Keys under which tools describe quantized weights.
constexpr std::string_view kQuantizationKeys[] = {"quantization_config", "compression_config", "quantization"};

/// Words, between dots and underscores, of parts that are no text decoder.
constexpr std::string_view kOtherParts[] = {
    "vision", "visual", "image",     "img",       "audio",     "speech",    "video",   "encoder", "mtp",
    "nextn",  "draft",  "eagle",     "medusa",    "talker",    "code2wav",  "tower",   "vit",     "clip",
    "siglip", "sam",    "resampler", "projector", "connector", "perceiver", "aligner", "qformer", "predictor"};
/// Words of model types of such parts alone, beside kOtherParts; and model types of an encoder with a decoder that looks
/// at it, which are no text decoder, taken apart or not.
constexpr std::string_view kOtherTypes[] = {"dinov2",  "dinov3", "hubert", "wav2vec2", "wavlm",
                                            "beit",    "deit",   "swin",   "swinv2",   "convnext",
                                            "pixtral", "ijepa",  "clap",   "aimv2",    "unispeech"};
constexpr std::string_view kBothTypes[] = {"bart",
                                           "mbart",
                                           "plbart",
                                           "mvp",
                                           "led",
                                           "pegasus",
                                           "pegasus_x",
                                           "marian",
                                           "blenderbot",
                                           "blenderbot-small",
                                           "m2m_100",
                                           "nllb-moe",
                                           "fsmt",
                                           "whisper",
                                           "moonshine",
                                           "speech_to_text",
                                           "prophetnet",
                                           "bigbird_pegasus",
                                           "t5",
                                           "mt5",
                                           "umt5",
                                           "longt5",
                                           "switch_transformers"};

/// Words between dots, underscores and hyphens.
bool has_word(std::string_view text, std::span<const std::string_view> list) {
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find_first_of("._-", begin), text.size());
    if (std::ranges::find(list, text.substr(begin, end - begin)) != list.end()) return true;
    begin = end + 1;
  }
  return false;
}

void read_block(const json& list, ModelConfig& out) {
  constexpr std::uint64_t kLargest = std::uint64_t{1} << 31;
  const auto good = [](const json& n) {
    return n.is_number_unsigned() && n.get<std::uint64_t>() >= 1 && n.get<std::uint64_t>() <= kLargest;
  };
  if (!list.is_array() || list.size() != 2 || !good(list[0]) || !good(list[1]))
    fail(Errc::malformed,
         fmt::format("{}: quantization_config: block size: found {}, expected two numbers [rows, columns]", out.source,
                     printable(list.dump(-1, ' ', true, json::error_handler_t::replace), 60)));
  out.block_rows = list[0].get<std::uint64_t>(), out.block_cols = list[1].get<std::uint64_t>();
}

const json* object_in(const json& object, const char* key) {
  const auto at = object.find(key);
  return at != object.end() && at->is_object() ? &*at : nullptr;
}

void read_quantization(const json& config, const std::string& source, ModelConfig& out) {
  out.quantized = true;
  out.source = source;
  for (const char* field : {"quant_method", "quant_algo", "format"})
    if (const auto at = config.find(field); out.method.empty() && at != config.end() && at->is_string())
      out.method = printable(at->get<std::string>(), 40);
  if (const auto size = config.find("weight_block_size"); size != config.end() && !size->is_null())
    read_block(*size, out);
  if (const json* groups = object_in(config, "config_groups"))
    for (const json& group : *groups)
      if (const json* weights = group.is_object() ? object_in(group, "weights") : nullptr)
        if (const auto block = weights->find("block_structure"); block != weights->end() && block->is_array())
          read_block(*block, out);
  for (const char* field : {"modules_to_not_convert", "ignored_layers", "ignore", "exclude_modules"})
    if (const auto list = config.find(field); list != config.end() && list->is_array())
      for (const json& module : *list)
        if (module.is_string()) out.exceptions.push_back(module.get<std::string>());
}

/// Walks the object and those in it: descriptions of the model's parts.
void walk(const json& object, const std::string& source, ModelConfig& out) {
  if (const auto type = object.find("model_type"); type != object.end() && type->is_string())
    out.model_types.push_back(type->get<std::string>());
  if (const auto both = object.find("is_encoder_decoder"); both != object.end() && both->is_boolean())
    out.encoder_decoder = out.encoder_decoder || both->get<bool>();
  for (const auto& [key, value] : object.items()) {
    if (value.is_array())
      for (const json& item : value)
        if (item.is_object()) walk(item, source, out);
    if (!value.is_object()) continue;
    if (std::ranges::find(kQuantizationKeys, std::string_view(key)) == std::end(kQuantizationKeys))
      walk(value, source, out);
    else if (!out.quantized)
      read_quantization(value, source, out);
  }
}

}  // namespace

bool ModelConfig::is_exception(std::string_view module) const {
  const std::string dotted = fmt::format(".{}.", module);
  return std::ranges::any_of(exceptions, [&](const std::string& name) {
    return !name.empty() && dotted.find(fmt::format(".{}.", name)) != dotted.npos;
  });
}

bool ModelConfig::is_another_part() const noexcept {
  return !model_types.empty() && std::ranges::all_of(model_types, [](const std::string& type) {
    return has_word(type, kOtherParts) || has_word(type, kOtherTypes);
  });
}

bool ModelConfig::has_encoder_type() const noexcept {
  return !decoder_only && !model_types.empty() &&
         std::ranges::find(kBothTypes, model_types.front()) != std::end(kBothTypes);
}

bool names_another_part(std::string_view prefix) noexcept { return has_word(prefix, kOtherParts); }

bool ModelConfig::is_a(std::string_view model_type) const noexcept {
  return std::ranges::find(model_types, model_type) != model_types.end();
}

ModelConfig read_model_config(const std::filesystem::path& folder) {
  ModelConfig config;
  if (folder.empty()) return config;
  for (const char* name : {"config.json", "hf_quant_config.json"}) {
    const std::filesystem::path path = folder / name;
    std::error_code error;
    if (!std::filesystem::is_regular_file(path, error)) continue;
    const std::string source = printable(path.native());
    json tree;
    try {
      tree = read_python_json_file(path, kConfigLimit);
    } catch (const Error& why) {
      config.warnings.push_back(fmt::format("{}: what it says of the weights is not known", why.what()));
      continue;
    }
    if (tree.is_object()) {
      walk(tree, source, config);
      const auto both = tree.find("is_encoder_decoder");
      config.decoder_only = config.decoder_only || (both != tree.end() && *both == false);
    } else {
      config.warnings.push_back(fmt::format("{}: no JSON object: what it says of the weights is not known", source));
    }
  }
  return config;
}

}  // namespace lmq
