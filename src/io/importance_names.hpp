#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lmq {

/// A name in a GGUF file, and which expert of it (-1: all, or there are none).
struct GgufName {
  std::string name;
  std::int64_t expert = -1;
  friend bool operator==(const GgufName&, const GgufName&) = default;
};

/// The names under which llama.cpp may know the weight of a Hugging Face checkpoint, likeliest first; empty for names
/// that follow no known scheme. "model.layers.3.mlp.experts.7.up_proj.weight" is expert 7 of
/// "blk.3.ffn_up_exps.weight".
[[nodiscard]] std::vector<GgufName> gguf_names(std::string_view weight);

/// The name of the parameter that an optimizer state's second moment belongs to: the part "exp_avg_sq" and the wrappers
/// around the parameter's name taken away ("optimizer.state.module.NAME.exp_avg_sq"). Nothing for other tensors.
[[nodiscard]] std::optional<std::string> adam_parameter(std::string_view name);
/// True for the other tensors of an optimizer's state: "NAME.exp_avg", "NAME.step", ...
[[nodiscard]] bool is_other_optimizer_state(std::string_view name);

/// Slashes of HDF5 paths as dots.
[[nodiscard]] std::string with_dots(std::string_view name);

}  // namespace lmq
