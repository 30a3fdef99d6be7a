#pragma once
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model_config.hpp"

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

/// Which tensors of a checkpoint are blocks of its text decoder, the only ones that "blk.N" of an imatrix speaks of:
/// vision towers, encoders, drafts (MTP) and talkers count blocks of their own.
class TextDecoder {
 public:
  /// names: of the tensors that importance is wanted for.
  TextDecoder(std::span<const std::string_view> names, const ModelConfig& config);
  /// True for tensors outside of blocks, too.
  [[nodiscard]] bool has(std::string_view weight) const;
  /// Prefixes of blocks that may be the decoder's, where one name of an imatrix means tensors below two of them; empty
  /// when it is known.
  [[nodiscard]] const std::vector<std::string>& candidates() const noexcept { return candidates_; }
  /// " (of model_type 'x')" where the configuration says that there is none; else empty.
  [[nodiscard]] const std::string& why() const noexcept { return why_; }

 private:
  [[nodiscard]] bool clash(std::span<const std::string_view> names) const;
  std::vector<std::string> accepted_, candidates_;
  std::string why_;
};

/// The name of the parameter that an optimizer state's second moment belongs to: the part "exp_avg_sq" and the wrappers
/// around the parameter's name taken away ("optimizer.state.module.NAME.exp_avg_sq"). Nothing for other tensors.
[[nodiscard]] std::optional<std::string> adam_parameter(std::string_view name);
/// True for the other tensors of an optimizer's state: "NAME.exp_avg", "NAME.step", ...
[[nodiscard]] bool is_other_optimizer_state(std::string_view name);

/// Names that entries for this tensor may have in a file of our schema, and in an imatrix, whatever part of the model it
/// is in.
[[nodiscard]] std::vector<std::string> schema_names(std::string_view weight);
[[nodiscard]] std::vector<std::string> imatrix_names(std::string_view weight);
/// Prefixes of blocks for a message, in quotes, an empty one as "no prefix".
[[nodiscard]] std::string listed_prefixes(const std::vector<std::string>& prefixes);
/// Where a tensor is square: how its model's type may say which axis counts inputs, or that it does not.
[[nodiscard]] std::string axis_advice(const std::vector<std::string>& model_types);

/// Slashes of HDF5 paths as dots.
[[nodiscard]] std::string with_dots(std::string_view name);

}  // namespace lmq
