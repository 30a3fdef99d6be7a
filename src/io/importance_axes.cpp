#include "importance_axes.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>

namespace lmq {
namespace {

/// Models whose c_attn, c_proj, c_fc are Conv1D layers; those that use the names for linear layers.
constexpr std::string_view kConv1D[] = {"gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp"};
constexpr std::string_view kLinear[] = {"gpt_bigcode", "starcoder", "starcoder2"};
/// Models whose stacks of experts are [experts, inputs, outputs].
constexpr std::string_view kInputsFirst[] = {"gpt_oss", "llama4", "llama4_text", "qwen3_vl_moe", "qwen3_vl_moe_text"};

constexpr std::string_view kWeight = ".weight";

std::string_view without_weight(std::string_view name) noexcept {
  return name.ends_with(kWeight) ? name.substr(0, name.size() - kWeight.size()) : name;
}

template <std::size_t N>
bool is_one_of(const ModelConfig& config, const std::string_view (&types)[N]) noexcept {
  return std::ranges::any_of(types, [&](std::string_view type) { return config.is_a(type); });
}

/// The tensor of that name, with or without ".weight".
const TensorInfo* find(const Catalogue& checkpoint, const std::string& name) noexcept {
  for (const std::string& full : {name, name + std::string(kWeight)})
    if (const std::int64_t at = checkpoint.find(full); at >= 0)
      return &checkpoint.tensors[static_cast<std::size_t>(at)];
  return nullptr;
}

InputAxis conv1d_axis(std::string_view block, const Catalogue& checkpoint, const ModelConfig& config) {
  if (is_one_of(config, kConv1D)) return InputAxis::first;
  if (is_one_of(config, kLinear)) return InputAxis::last;
  for (const char* wide : {"mlp.c_fc", "attn.c_attn"})  // layers with more outputs than inputs
    if (const TensorInfo* layer = find(checkpoint, fmt::format("{}{}", block, wide)))
      if (layer->shape.size() == 2 && layer->shape[0] != layer->shape[1])
        return layer->shape[1] > layer->shape[0] ? InputAxis::first : InputAxis::last;
  return InputAxis::unknown;
}

InputAxis expert_axis(std::string_view module, const Catalogue& checkpoint, const ModelConfig& config) {
  const TensorInfo* both = find(checkpoint, fmt::format("{}gate_up_proj", module));
  const TensorInfo* down = find(checkpoint, fmt::format("{}down_proj", module));
  if (both != nullptr && down != nullptr && both->shape.size() == 3 && down->shape.size() == 3) {
    const auto &g = both->shape, &d = down->shape;
    if (g[1] == d[2] && g[2] == 2 * d[1]) return InputAxis::first;
    if (g[2] == d[1] && g[1] == 2 * d[2]) return InputAxis::last;
  }
  return is_one_of(config, kInputsFirst) ? InputAxis::first : InputAxis::unknown;
}

}  // namespace

InputAxis input_axis(const TensorInfo& weight, const Catalogue& checkpoint, const ModelConfig& config) {
  const std::string_view name = without_weight(weight.name);
  if (weight.shape.size() == 2)
    for (const std::string_view layer : {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"})
      if (name.ends_with(layer)) return conv1d_axis(name.substr(0, name.size() - layer.size()), checkpoint, config);
  if (weight.shape.size() == 3 && name.find("expert") != name.npos)
    return expert_axis(name.substr(0, name.rfind('.') + 1), checkpoint, config);
  return InputAxis::last;
}

}  // namespace lmq
