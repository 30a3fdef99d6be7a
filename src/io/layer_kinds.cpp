#include "lmq/io/layer_kinds.hpp"

#include <algorithm>
#include <string_view>

#include "importance_axes.hpp"
#include "model_config.hpp"

namespace lmq {
namespace {

/// Calls body with each part of a dotted name; true when one of them is.
template <class Body>
bool any_part(std::string_view name, Body body) {
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find('.', begin), name.size());
    if (body(name.substr(begin, end - begin))) return true;
    begin = end + 1;
  }
  return false;
}

bool is_number(std::string_view part) noexcept {
  return !part.empty() && std::ranges::all_of(part, [](char c) { return c >= '0' && c <= '9'; });
}

/// Tables that are looked up, and routers, which runtimes keep as they are.
bool stays_plain(std::string_view part) noexcept {
  return part.find("embed") != part.npos || part == "wte" || part == "wpe" || part == "relative_attention_bias" ||
         part == "router" || part == "gate" || part == "shared_expert_gate" || part.ends_with("head");
}

LayerKind kind_of(const TensorInfo& tensor, const Catalogue& checkpoint, const ModelConfig& config) {
  constexpr std::string_view kWeight = ".weight";
  std::string_view name = tensor.name;
  if (tensor.shape.size() != 2 || !is_float(tensor.dtype) || tensor.count() == 0 || !name.ends_with(kWeight))
    return LayerKind::other;
  name.remove_suffix(kWeight.size());
  if (!any_part(name, is_number) || any_part(name, stays_plain)) return LayerKind::other;
  return input_axis(tensor, checkpoint, config) == InputAxis::last ? LayerKind::linear : LayerKind::transposed;
}

}  // namespace

std::vector<LayerKind> layer_kinds(const Catalogue& checkpoint, const std::filesystem::path& folder) {
  const ModelConfig config = read_model_config(folder);
  std::vector<LayerKind> kinds;
  for (const TensorInfo& tensor : checkpoint.tensors) kinds.push_back(kind_of(tensor, checkpoint, config));
  return kinds;
}

}  // namespace lmq
