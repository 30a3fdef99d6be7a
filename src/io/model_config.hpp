#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace lmq {

/// What the files beside a checkpoint say of it: config.json and hf_quant_config.json.
struct ModelConfig {
  std::string source;                                ///< the file that tells of quantized weights, for messages
  std::vector<std::string> model_types;              ///< "model_type" of the model and of its parts, outermost first
  bool encoder_decoder = false;                      ///< "is_encoder_decoder" of the model or of a part
  bool decoder_only = false;                         ///< the model says that it is none
  bool quantized = false;                            ///< there is a quantization_config, wherever nested
  std::string method;                                ///< its quant_method, quant_algo or format; empty: not said
  std::uint64_t block_rows = 128, block_cols = 128;  ///< weights that share a scale
  std::vector<std::string> exceptions;               ///< modules that are not quantized
  std::vector<std::string> warnings;                 ///< one line each: a file that cannot be understood

  /// True when `module` is an exception: by itself, by a module that holds it, or by the tail or middle of its name.
  [[nodiscard]] bool is_exception(std::string_view module) const;
  /// True when the model or one of its parts is of that type.
  [[nodiscard]] bool is_a(std::string_view model_type) const noexcept;
  /// True when all model types are those of parts that are no text decoder: towers, encoders of speech, ...
  [[nodiscard]] bool is_another_part() const noexcept;
  /// True for a model type of an encoder and a decoder that looks at it, unless the model says that it is a decoder alone.
  [[nodiscard]] bool has_encoder_type() const noexcept;
};

/// Does a word of it, between dots, underscores and hyphens, name a part that is no text decoder ("vision_tower")?
[[nodiscard]] bool names_another_part(std::string_view prefix) noexcept;

/// Reads them from the folder of a checkpoint. A file that is no JSON object is a warning (most of a checkpoint does
/// without). Errc::malformed for a block size that is none.
[[nodiscard]] ModelConfig read_model_config(const std::filesystem::path& folder);

}  // namespace lmq
