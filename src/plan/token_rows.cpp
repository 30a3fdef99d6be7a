#include "token_rows.hpp"

#include <algorithm>
#include <array>
#include <string_view>

namespace lmq {
namespace {
constexpr std::uint64_t kLeastTokens = 8192;

/// Last parts of names, before ".weight". Heads of classifiers ("head", "classifier", "fc") are none.
constexpr std::array<std::string_view, 14> kTables{"embed_tokens",    "tok_embeddings", "token_embd", "token_embedding",
                                                   "word_embeddings", "word_embedding", "wte",        "embed_in",
                                                   "embed_out",       "embeddings",     "emb",        "shared",
                                                   "lm_head",         "output"};
}  // namespace

bool rows_are_tokens(const TensorInfo& tensor) noexcept {
  constexpr std::string_view kWeight = ".weight";
  std::string_view name = tensor.name;
  if (tensor.shape.size() != 2 || tensor.shape[0] < kLeastTokens || tensor.shape[0] <= tensor.shape[1]) return false;
  if (!name.ends_with(kWeight)) return false;
  name.remove_suffix(kWeight.size());
  const std::size_t dot = name.rfind('.');
  return std::ranges::find(kTables, dot == name.npos ? name : name.substr(dot + 1)) != kTables.end();
}

}  // namespace lmq
