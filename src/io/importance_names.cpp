#include "importance_names.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <set>
#include <span>

#include "lmq/base/text.hpp"

namespace lmq {
namespace {

struct Pair {
  std::string_view ours, gguf;
};

/// Behind the number of the block, experts as "*".
constexpr std::array kBlockNames{
    Pair{"self_attn.q_proj", "attn_q"},
    Pair{"self_attn.k_proj", "attn_k"},
    Pair{"self_attn.v_proj", "attn_v"},
    Pair{"self_attn.o_proj", "attn_output"},
    Pair{"self_attn.out_proj", "attn_output"},
    Pair{"self_attn.dense", "attn_output"},
    Pair{"self_attn.qkv_proj", "attn_qkv"},
    Pair{"self_attn.W_pack", "attn_qkv"},
    Pair{"self_attn.query_key_value", "attn_qkv"},
    Pair{"self_attn.q_a_proj", "attn_q_a"},
    Pair{"self_attn.q_b_proj", "attn_q_b"},
    Pair{"self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa"},
    Pair{"self_attn.kv_b_proj", "attn_kv_b"},
    Pair{"self_attention.query_key_value", "attn_qkv"},
    Pair{"self_attention.dense", "attn_output"},
    Pair{"attention.query_key_value", "attn_qkv"},
    Pair{"attention.dense", "attn_output"},
    Pair{"attention.wq", "attn_q"},
    Pair{"attention.wk", "attn_k"},
    Pair{"attention.wv", "attn_v"},
    Pair{"attention.wo", "attn_output"},
    Pair{"attention.wqkv", "attn_qkv"},
    Pair{"attention.self.query", "attn_q"},
    Pair{"attention.self.key", "attn_k"},
    Pair{"attention.self.value", "attn_v"},
    Pair{"attention.output.dense", "attn_output"},
    Pair{"attn.q_proj", "attn_q"},
    Pair{"attn.k_proj", "attn_k"},
    Pair{"attn.v_proj", "attn_v"},
    Pair{"attn.out_proj", "attn_output"},
    Pair{"attn.c_attn", "attn_qkv"},
    Pair{"attn.c_proj", "attn_output"},
    Pair{"attn.Wqkv", "attn_qkv"},
    Pair{"mlp.gate_proj", "ffn_gate"},
    Pair{"mlp.up_proj", "ffn_up"},
    Pair{"mlp.down_proj", "ffn_down"},
    Pair{"mlp.gate_up_proj", "ffn_up"},
    Pair{"mlp.fc1", "ffn_up"},
    Pair{"mlp.fc2", "ffn_down"},
    Pair{"mlp.fc_in", "ffn_up"},
    Pair{"mlp.fc_out", "ffn_down"},
    Pair{"mlp.c_fc", "ffn_up"},
    Pair{"mlp.c_proj", "ffn_down"},
    Pair{"mlp.dense_h_to_4h", "ffn_up"},
    Pair{"mlp.dense_4h_to_h", "ffn_down"},
    Pair{"intermediate.dense", "ffn_up"},
    Pair{"output.dense", "ffn_down"},
    Pair{"fc1", "ffn_up"},
    Pair{"fc2", "ffn_down"},
    Pair{"feed_forward.w1", "ffn_gate"},
    Pair{"feed_forward.w2", "ffn_down"},
    Pair{"feed_forward.w3", "ffn_up"},
    Pair{"feed_forward.gate_proj", "ffn_gate"},
    Pair{"feed_forward.up_proj", "ffn_up"},
    Pair{"feed_forward.down_proj", "ffn_down"},
    Pair{"mlp.experts.*.gate_proj", "ffn_gate_exps"},
    Pair{"mlp.experts.*.up_proj", "ffn_up_exps"},
    Pair{"mlp.experts.*.down_proj", "ffn_down_exps"},
    Pair{"block_sparse_moe.experts.*.w1", "ffn_gate_exps"},
    Pair{"block_sparse_moe.experts.*.w2", "ffn_down_exps"},
    Pair{"block_sparse_moe.experts.*.w3", "ffn_up_exps"},
    Pair{"feed_forward.experts.*.w1", "ffn_gate_exps"},
    Pair{"feed_forward.experts.*.w2", "ffn_down_exps"},
    Pair{"feed_forward.experts.*.w3", "ffn_up_exps"},
    Pair{"mlp.experts.gate_proj", "ffn_gate_exps"},
    Pair{"mlp.experts.up_proj", "ffn_up_exps"},
    Pair{"mlp.experts.down_proj", "ffn_down_exps"},
    Pair{"mlp.experts.gate_up_proj", "ffn_gate_exps"},
    Pair{"mlp.experts.gate_up_proj", "ffn_up_exps"},
    Pair{"mlp.experts.gate_up_proj", "ffn_gate_up_exps"},
    Pair{"feed_forward.experts.gate_up_proj", "ffn_gate_exps"},
    Pair{"feed_forward.experts.gate_up_proj", "ffn_up_exps"},
    Pair{"feed_forward.experts.down_proj", "ffn_down_exps"},
    Pair{"mlp.shared_expert.gate_proj", "ffn_gate_shexp"},
    Pair{"mlp.shared_expert.up_proj", "ffn_up_shexp"},
    Pair{"mlp.shared_expert.down_proj", "ffn_down_shexp"},
    Pair{"mlp.shared_experts.gate_proj", "ffn_gate_shexp"},
    Pair{"mlp.shared_experts.up_proj", "ffn_up_shexp"},
    Pair{"mlp.shared_experts.down_proj", "ffn_down_shexp"},
    Pair{"feed_forward.shared_expert.gate_proj", "ffn_gate_shexp"},
    Pair{"feed_forward.shared_expert.up_proj", "ffn_up_shexp"},
    Pair{"feed_forward.shared_expert.down_proj", "ffn_down_shexp"},
    Pair{"mlp.gate", "ffn_gate_inp"},
    Pair{"mlp.router", "ffn_gate_inp"},
    Pair{"block_sparse_moe.gate", "ffn_gate_inp"},
    Pair{"feed_forward.router", "ffn_gate_inp"},
    Pair{"mlp.shared_expert_gate", "ffn_gate_inp_shexp"},
    Pair{"mixer.in_proj", "ssm_in"},
    Pair{"mixer.x_proj", "ssm_x"},
    Pair{"mixer.dt_proj", "ssm_dt"},
    Pair{"mixer.out_proj", "ssm_out"},
    Pair{"linear_attn.in_proj_qkvz", "ssm_in"},
    Pair{"linear_attn.in_proj_ba", "ssm_ba"},
    Pair{"linear_attn.out_proj", "ssm_out"},
};

/// Names outside of blocks.
constexpr std::array kTopNames{
    Pair{"lm_head", "output"},
    Pair{"output", "output"},
    Pair{"embed_out", "output"},
    Pair{"model.embed_tokens", "token_embd"},
    Pair{"model.language_model.embed_tokens", "token_embd"},
    Pair{"language_model.model.embed_tokens", "token_embd"},
    Pair{"language_model.lm_head", "output"},
    Pair{"model.decoder.embed_tokens", "token_embd"},
    Pair{"model.tok_embeddings", "token_embd"},
    Pair{"tok_embeddings", "token_embd"},
    Pair{"transformer.wte", "token_embd"},
    Pair{"transformer.word_embeddings", "token_embd"},
    Pair{"gpt_neox.embed_in", "token_embd"},
    Pair{"backbone.embeddings", "token_embd"},
};

/// What stands before the blocks of a text decoder.
constexpr std::string_view kDecoders[] = {"",
                                          "model",
                                          "model.model",
                                          "model.language_model",
                                          "model.language_model.model",
                                          "language_model",
                                          "language_model.model",
                                          "language_model.transformer",
                                          "language_model.decoder",
                                          "language_model.model.decoder",
                                          "model.language_model.decoder",
                                          "text_model",
                                          "model.text_model",
                                          "transformer",
                                          "gpt_neox",
                                          "backbone",
                                          "decoder",
                                          "model.decoder",
                                          "llm",
                                          "llm.model",
                                          "thinker.model",
                                          "base_model.model.model"};
/// Of models that are encoders throughout, or call their blocks so.
constexpr std::string_view kEncoders[] = {"encoder", "bert.encoder", "roberta.encoder", "transformer.encoder"};
constexpr std::string_view kBlockWords[] = {"layers", "h", "blocks", "block", "layer"};
constexpr std::string_view kMoment = "exp_avg_sq";
constexpr std::string_view kOptimizerParts[] = {"exp_avg",      "exp_avg_sq",      "max_exp_avg_sq", "step",
                                                "param_groups", "momentum_buffer", "master_param",   "fp32_param"};
constexpr std::string_view kWrappers[] = {"optimizer", "optim",     "optimizer_state", "optimizer_states",    "state",
                                          "module",    "_orig_mod", "_forward_module", "_fsdp_wrapped_module"};

std::vector<std::string_view> parts_of(std::string_view name) {
  std::vector<std::string_view> parts;
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find('.', begin), name.size());
    parts.push_back(name.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

std::string join(std::span<const std::string_view> parts) {
  std::string text;
  for (const std::string_view part : parts) text += fmt::format("{}{}", text.empty() ? "" : ".", part);
  return text;
}

std::optional<std::uint32_t> number_of(std::string_view text) {
  std::uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return number;
}

/// Where the block's number stands among the parts, or nothing.
std::optional<std::size_t> block_number(const std::vector<std::string_view>& parts) {
  for (std::size_t i = 1; i + 1 < parts.size(); ++i)
    if (number_of(parts[i]) && std::ranges::find(kBlockWords, parts[i - 1]) != std::end(kBlockWords)) return i;
  return std::nullopt;
}

std::vector<GgufName> block_names(const std::vector<std::string_view>& parts, std::size_t at) {
  std::vector<std::string_view> tail(parts.begin() + static_cast<std::ptrdiff_t>(at) + 1, parts.end());
  const std::uint32_t block = *number_of(parts[at]);
  std::int64_t expert = -1;
  for (std::size_t i = 1; i < tail.size(); ++i)
    if (const auto number = number_of(tail[i]); number && tail[i - 1] == "experts") expert = *number, tail[i] = "*";
  const std::string wanted = join(tail);
  std::vector<GgufName> names;
  for (const Pair& pair : kBlockNames) {
    if (pair.ours != wanted) continue;
    names.push_back({fmt::format("blk.{}.{}.weight", block, pair.gguf), expert});
    if (expert >= 0)  // files from before experts were stacked
      names.push_back(
          {fmt::format("blk.{}.{}.{}.weight", block, pair.gguf.substr(0, pair.gguf.size() - 5), expert), -1});
  }
  return names;
}

bool is_one_of(std::string_view text, std::span<const std::string_view> list) noexcept {
  return std::ranges::find(list, text) != list.end();
}

/// What stands before the blocks that a tensor is in, or nothing.
std::optional<std::string> block_prefix(std::string_view name) {
  const auto parts = parts_of(name);
  const auto at = block_number(parts);
  if (!at) return std::nullopt;
  return join(std::span(parts).first(*at - 1));
}

/// Are both an encoder and its decoder there, by their names?
bool has_both(const std::set<std::string>& prefixes) {
  constexpr std::string_view kDecoder = "decoder", kEncoder = "encoder";
  return std::ranges::any_of(prefixes, [&](const std::string& prefix) {
    if (parts_of(prefix).back() != kDecoder) return false;
    const std::string other = prefix.substr(0, prefix.size() - kDecoder.size()) + std::string(kEncoder);
    return prefixes.contains(other);
  });
}

}  // namespace

TextDecoder::TextDecoder(std::span<const std::string_view> names, const ModelConfig& config) {
  std::set<std::string> prefixes;
  bool has_tower = false;  // "encoder.layers.N.self_attn" is of a tower or a translator; BERT's are called otherwise
  for (const std::string_view name : names)
    if (auto prefix = block_prefix(name); prefix && !gguf_names(name).empty()) {
      has_tower = has_tower || (*prefix == "encoder" && name.find(".self_attn.") != name.npos);
      prefixes.insert(std::move(*prefix));
    }
  if (config.is_another_part()) {
    why_ = fmt::format(" (of model_type '{}')", config.model_types.front());
    return;
  }
  const bool of_both = config.has_encoder_type();
  if (of_both) why_ = fmt::format(" (of model_type '{}', an encoder and a decoder)", config.model_types.front());
  const bool encodes = config.encoder_decoder || of_both || has_tower || has_both(prefixes);
  std::vector<std::string> known, encoders, others;
  for (const std::string& prefix : prefixes) {
    if (encodes && parts_of(prefix).back() == "decoder") continue;
    if (is_one_of(prefix, kDecoders))
      known.push_back(prefix);
    else if (is_one_of(prefix, kEncoders) && !encodes)
      encoders.push_back(prefix);
    else if (!names_another_part(prefix))
      others.push_back(prefix);
  }
  // Others only where no known one is, an encoder only where there is nothing else.
  accepted_ = !known.empty() ? known : !others.empty() ? others : encoders;
  if (accepted_.size() > 1 && clash(names)) candidates_ = accepted_;
}

/// Do two accepted parts have a block of the same name?
bool TextDecoder::clash(std::span<const std::string_view> names) const {
  std::map<std::pair<std::string, std::int64_t>, std::string> first;
  for (const std::string_view name : names) {
    const auto prefix = block_prefix(name);
    if (!prefix || std::ranges::find(accepted_, *prefix) == accepted_.end()) continue;
    for (const GgufName& known : gguf_names(name))
      if (first.try_emplace({known.name, known.expert}, *prefix).first->second != *prefix) return true;
  }
  return false;
}

bool TextDecoder::has(std::string_view weight) const {
  const auto prefix = block_prefix(weight);
  return !prefix || std::ranges::find(accepted_, *prefix) != accepted_.end();
}

std::vector<GgufName> gguf_names(std::string_view weight) {
  constexpr std::string_view kWeight = ".weight";
  if (weight.ends_with(kWeight)) weight.remove_suffix(kWeight.size());
  const auto parts = parts_of(weight);
  if (const auto at = block_number(parts)) return block_names(parts, *at);
  for (const Pair& pair : kTopNames)
    if (pair.ours == weight) return {{fmt::format("{}.weight", pair.gguf), -1}};
  return {};
}

std::optional<std::string> adam_parameter(std::string_view name) {
  auto parts = parts_of(name);
  const auto moment = std::ranges::find(parts, kMoment);
  if (moment == parts.end()) return std::nullopt;
  parts.erase(moment);
  std::size_t begin = 0;
  while (begin + 1 < parts.size() && std::ranges::find(kWrappers, parts[begin]) != std::end(kWrappers)) ++begin;
  return join(std::span(parts).subspan(begin));
}

bool is_other_optimizer_state(std::string_view name) {
  return std::ranges::any_of(parts_of(name), [](std::string_view part) {
    return part != kMoment && std::ranges::find(kOptimizerParts, part) != std::end(kOptimizerParts);
  });
}

std::vector<std::string> schema_names(std::string_view weight) {
  std::vector<std::string> names{with_dots(weight)};
  for (const char* suffix : {".columns", ".weights", ".rows", ".outer", ".gram"})
    names.push_back(names.front() + suffix);
  return names;
}

std::vector<std::string> imatrix_names(std::string_view weight) {
  std::vector<std::string> names{std::string(weight)};
  for (const GgufName& known : gguf_names(weight)) names.push_back(known.name);
  return names;
}

std::string listed_prefixes(const std::vector<std::string>& prefixes) {
  std::string text;
  for (const std::string& prefix : prefixes)
    text += fmt::format("{}{}", text.empty() ? "" : ", ",
                        prefix.empty() ? "no prefix" : fmt::format("'{}'", printable(prefix)));
  return text;
}

std::string axis_advice(const std::vector<std::string>& model_types) {
  if (model_types.empty()) return "a config.json with the model_type may; or ";
  return fmt::format("of model_type '{}' that is not known; ",
                     printable(fmt::format("{}", fmt::join(model_types, ", "))));
}

std::string with_dots(std::string_view name) {
  std::string text(name);
  std::ranges::replace(text, '/', '.');
  return text;
}

}  // namespace lmq
