#include "companions.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "block_scales.hpp"
#include "companion_names.hpp"
#include "lmq/base/text.hpp"

namespace lmq {
namespace {

bool can_be_packed(DType type) noexcept {
  switch (type) {
    case DType::u8:
    case DType::i8:
    case DType::u16:
    case DType::i16:
    case DType::u32:
    case DType::i32:
    case DType::i64:
    case DType::f4:
    case DType::f6_e2m3:
    case DType::f6_e3m2:
      return true;
    default:
      return is_f8(type);
  }
}

bool is_matrix(const TensorInfo& tensor) {
  return std::ranges::count_if(tensor.shape, [](std::uint64_t extent) { return extent > 1; }) >= 2;
}
bool is_plain_matrix(const TensorInfo& tensor) {
  return is_float(tensor.dtype) && !is_f8(tensor.dtype) && is_matrix(tensor);
}
/// Integers that can be packed weights: of 64 bits, places in a table as a rule, by their names alone.
bool is_packed_matrix(const TensorInfo& tensor) {
  const bool named = is_whole_module(lower(leaf_of(tensor.name)));
  return can_be_packed(tensor.dtype) && !is_f8(tensor.dtype) && (named || tensor.dtype != DType::i64) &&
         is_matrix(tensor);
}

/// Does the shape say that `table` holds a number for each run of 8 or more columns or rows of 8-bit integers?
bool scales_by_shape(const TensorInfo& table, const TensorInfo& packed) {
  if (bits(packed.dtype) != 8 || table.shape.size() < 2 || packed.shape.size() < 2) return false;
  const auto a = std::span(table.shape).first(2), b = std::span(packed.shape).first(2);
  if (table.count() != a[0] * a[1] || packed.count() != b[0] * b[1]) return false;
  const auto divides = [](std::uint64_t few, std::uint64_t many) {
    return few > 1 && many % few == 0 && many / few >= 8;
  };
  return (a[0] == b[0] && divides(a[1], b[1])) || (a[1] == b[1] && divides(a[0], b[0]));
}

/// The weights that can be packed, by the module that holds them.
class PackedWeights {
 public:
  PackedWeights(const Catalogue& catalogue, bool described) : catalogue_(catalogue), described_(described) {
    for (std::size_t i = 0; i < catalogue.tensors.size(); ++i) {
      const TensorInfo& tensor = catalogue.tensors[i];
      const std::string leaf = lower(leaf_of(tensor.name));
      const bool worded = first_word(leaf) != std::string::npos;
      if (is_plain_matrix(tensor) && leaf == "weight") own_weight_.insert(module_of(tensor.name));
      if (is_float(tensor.dtype) && worded) worded_.insert(module_of(tensor.name));
      if (!is_float(tensor.dtype) && is_integer_companion(leaf)) orphaned_.insert(module_of(tensor.name));
      if (!can_be_packed(tensor.dtype) || worded) continue;
      // "attention_bias_idxs" beside "attention_biases"
      if (!is_whole_module(leaf) && (tensor.dtype == DType::i64 || names_places(leaf))) continue;
      in_module_[module_of(tensor.name)].push_back(static_cast<std::int64_t>(i));
      // "X.weight._data._data", "X.weight:qdata": what stands for a module in a module of such a name stands for both.
      std::string_view above = module_of(tensor.name);
      for (; is_whole_module(leaf) && is_whole_module(lower(leaf_of(above))); above = module_of(above))
        in_module_[module_of(above)].push_back(static_cast<std::int64_t>(i));
      if (is_packed_matrix(tensor))
        for (Part part(tensor.name); part.leads(); part.next())
          with_a_gap_.emplace(part.replaced("*"), static_cast<std::int64_t>(i));
    }
  }
  [[nodiscard]] bool none() const noexcept { return in_module_.empty() && orphaned_.empty() && !described_; }

  [[nodiscard]] std::int64_t owner_of(const TensorInfo& tensor) const {
    // "X.weight.absmax": whatever lies below the name of a packed weight.
    for (std::string_view above = module_of(tensor.name); !above.empty(); above = module_of(above))
      if (const std::int64_t at = catalogue_.find(above); at >= 0) return is_packed(at) ? at : -1;
    const std::string leaf = lower(leaf_of(tensor.name));
    const std::size_t word = first_word(leaf);
    const std::string_view module = module_of(tensor.name);
    const auto siblings = in_module_.find(module);
    if (word != std::string_view::npos && siblings != in_module_.end())
      for (const std::int64_t at : siblings->second)
        if (belongs(leaf, word, lower(leaf_of(catalogue_.tensors[static_cast<std::size_t>(at)].name)))) return at;
    if (const std::int64_t at = matrix_beside(tensor, module); at >= 0) return at;
    if (const std::int64_t at = behind_a_word(tensor); at >= 0) return at;
    return word != std::string_view::npos ? weight_above(tensor, module) : -1;
  }

  /// Is a matrix the scale of a weight that is quantized elsewhere, in a shard that is not here? Its name says nothing
  /// but that, no weight lies beside it, and zero points or the configuration tell of such weights.
  [[nodiscard]] bool is_orphan(const TensorInfo& tensor) const {
    const std::string_view module = module_of(tensor.name);
    if (!is_float(tensor.dtype) || !is_matrix(tensor) || !is_word_alone(lower(leaf_of(tensor.name)))) return false;
    return !own_weight_.contains(module) && !in_module_.contains(module) && catalogue_.find(module) < 0 &&
           (described_ || orphaned_.contains(module));
  }

 private:
  /// One part after the other of a name between dots.
  class Part {
   public:
    explicit Part(std::string_view name) : name_(name) { find_end(); }
    /// More parts come: it is not the leaf.
    [[nodiscard]] bool leads() const noexcept { return end_ < name_.size(); }
    void next() noexcept {  // of one that leads
      begin_ = end_ + 1;
      find_end();
    }
    [[nodiscard]] std::string_view text() const noexcept { return name_.substr(begin_, end_ - begin_); }
    [[nodiscard]] std::string replaced(std::string_view by) const {
      return fmt::format("{}{}{}", name_.substr(0, begin_), by, name_.substr(end_));
    }
    [[nodiscard]] std::string left_out() const {  // of one that leads
      return fmt::format("{}{}", name_.substr(0, begin_), name_.substr(end_ + 1));
    }

   private:
    void find_end() noexcept { end_ = std::min(name_.find_first_of("./:", begin_), name_.size()); }
    std::string_view name_;
    std::size_t begin_ = 0, end_ = 0;
  };

  /// "scales.X" of the packed "X", or of "codes.X": a part before the leaf says what it is, the others are the weight's.
  [[nodiscard]] std::int64_t behind_a_word(const TensorInfo& tensor) const {
    for (Part part(tensor.name); part.leads(); part.next()) {
      if (first_word(lower(part.text())) != 0) continue;
      if (const std::int64_t at = catalogue_.find(part.left_out()); at >= 0 && is_packed(at)) return at;
      if (const auto at = with_a_gap_.find(part.replaced("*")); at != with_a_gap_.end()) return at->second;
    }
    return -1;
  }
  /// "X.pre_ops.0.op._scale" of the packed X.weight: what a word names somewhere below the module of a packed weight.
  [[nodiscard]] std::int64_t weight_above(const TensorInfo& tensor, std::string_view module) const {
    if (!is_float(tensor.dtype)) return -1;
    for (; !module.empty(); module = module_of(module)) {
      if (own_weight_.contains(module)) return -1;
      const auto packed = in_module_.find(module);
      if (packed == in_module_.end()) continue;
      for (const std::int64_t at : packed->second) {
        const TensorInfo& weight = catalogue_.tensors[static_cast<std::size_t>(at)];
        if (is_packed_matrix(weight) && lower(leaf_of(weight.name)).find("weight") != std::string::npos) return at;
      }
    }
    return -1;
  }
  /// Matrices of floats in a module of packed integers, or in a part of it that a word names ("X.centroids.weight"):
  /// tables of its codes, whatever the tool calls them. Not where the module has a weight of its own ("edge_index", "faces",
  /// "pruned" beside "weight"), nor where no name, scale, shape or configuration says that the integers are packed.
  [[nodiscard]] std::int64_t matrix_beside(const TensorInfo& tensor, std::string_view module) const {
    if (!is_plain_matrix(tensor)) return -1;
    const std::string leaf = lower(leaf_of(tensor.name));
    const bool is_part = first_word(lower(leaf_of(module))) != std::string_view::npos;
    for (const std::string_view place : {module, is_part ? module_of(module) : std::string_view{}}) {
      const auto siblings = in_module_.find(place);
      if (place.empty() || siblings == in_module_.end() || own_weight_.contains(place)) continue;
      for (const std::int64_t at : siblings->second) {
        const TensorInfo& packed = catalogue_.tensors[static_cast<std::size_t>(at)];
        const std::string name = lower(leaf_of(packed.name));
        const bool told = is_part || described_ || worded_.contains(place) || is_whole_module(name) ||
                          stem_of(name) != name || scales_by_shape(tensor, packed);
        if (told && is_packed_matrix(packed) && shares_module(leaf, name)) return at;
      }
    }
    return -1;
  }
  [[nodiscard]] bool is_packed(std::int64_t at) const {
    const auto known = in_module_.find(module_of(catalogue_.tensors[static_cast<std::size_t>(at)].name));
    return known != in_module_.end() && std::ranges::find(known->second, at) != known->second.end();
  }
  const Catalogue& catalogue_;
  const bool described_;                             // the configuration tells of quantized weights
  std::unordered_set<std::string_view> orphaned_;    // modules with integers that belong to a packed weight
  std::unordered_set<std::string_view> own_weight_;  // modules with a matrix "weight" of floats
  std::unordered_set<std::string_view> worded_;      // with floats of kWords
  std::unordered_map<std::string_view, std::vector<std::int64_t>> in_module_;
  std::unordered_map<std::string, std::int64_t> with_a_gap_;  // packed matrices by their names with '*' for one part
};

}  // namespace

std::vector<std::int64_t> find_companions(const Catalogue& catalogue, bool described) {
  std::vector<std::int64_t> owners(catalogue.tensors.size(), -1);
  const PackedWeights packed(catalogue, described);
  if (packed.none()) return owners;
  for (std::size_t i = 0; i < owners.size(); ++i) {
    owners[i] = packed.owner_of(catalogue.tensors[i]);
    if (owners[i] < 0 && packed.is_orphan(catalogue.tensors[i])) owners[i] = static_cast<std::int64_t>(i);
  }
  return owners;
}

std::set<std::string> outlived_companions(const Catalogue& catalogue, const std::set<std::string>& folded) {
  std::set<std::string> names;
  if (folded.empty()) return names;
  const std::vector<std::int64_t> owners = find_companions(catalogue);
  const bool all_folded = std::ranges::all_of(owners, [&](std::int64_t owner) {
    return owner < 0 || !is_f8(catalogue.tensors[static_cast<std::size_t>(owner)].dtype) ||
           folded.contains(catalogue.tensors[static_cast<std::size_t>(owner)].name);
  });
  for (std::size_t i = 0; i < owners.size(); ++i) {
    const std::string& name = catalogue.tensors[i].name;
    if (catalogue.tensors[i].scales >= 0) continue;
    const bool of_folded =
        owners[i] >= 0 && folded.contains(catalogue.tensors[static_cast<std::size_t>(owners[i])].name);
    if (of_folded || (all_folded && leaf_of(name) == "scaled_fp8")) names.insert(name);
  }
  return names;
}

bool is_quantization_key(std::string_view key) {
  const std::string small = lower(key);
  for (std::size_t begin = 0; begin < small.size();) {
    std::size_t end = begin;
    while (end < small.size() && small[end] >= 'a' && small[end] <= 'z') ++end;
    const std::string_view word = std::string_view(small).substr(begin, end - begin);
    if (word == "quant" || word.starts_with("quantiz") || word.starts_with("quantis")) return true;
    begin = end + 1;
  }
  return false;
}

namespace {

/// "3 weights are quantized already (config.json says gptq), such as 'X': kept raw ...".
std::string kept_text(const Catalogue& catalogue, const std::map<std::uint32_t, std::string>& packed,
                      const ModelConfig& config) {
  return fmt::format(
      "{}: {} weight{} quantized already{}, such as '{}': kept raw with what belongs to {}; start from the "
      "unquantized model",
      printable(catalogue.folder.native()), packed.size(), packed.size() == 1 ? " is" : "s are",
      config.method.empty() ? "" : fmt::format(" ({} says {})", config.source, config.method),
      printable(catalogue.tensors[packed.begin()->first].name), packed.size() == 1 ? "it" : "them");
}
std::string orphans_text(const Catalogue& catalogue, const std::map<std::uint32_t, std::string>& orphans) {
  return fmt::format(
      "{}: {} tensor{} to quantized weights that are not here, such as '{}': kept raw; start from the "
      "unquantized model",
      printable(catalogue.folder.native()), orphans.size(), orphans.size() == 1 ? " belongs" : "s belong",
      printable(catalogue.tensors[orphans.begin()->first].name));
}

}  // namespace

void mark_companions(Catalogue& catalogue, const std::vector<std::int64_t>& owners, const ModelConfig& config) {
  std::map<std::uint32_t, std::string> packed, others, orphans;  // tensor -> why it is kept
  for (std::uint32_t i = 0; i < owners.size(); ++i) {
    if (owners[i] < 0 || catalogue.tensors[i].scales >= 0) continue;
    const auto at = static_cast<std::uint32_t>(owners[i]);
    const TensorInfo& owner = catalogue.tensors[at];
    if (at == i) {
      orphans.emplace(i, "belongs to a quantized weight that is not here");
      continue;
    }
    others.emplace(i, fmt::format("belongs to the quantized '{}'", owner.name));
    if (!is_f8(owner.dtype))
      packed.emplace(at, fmt::format("quantized already: '{}' belongs to it", catalogue.tensors[i].name));
  }
  for (const auto* kept : {&packed, &others, &orphans})
    for (const auto& [tensor, why] : *kept) catalogue.notes.push_back({tensor, Fitness::companion, why});
  std::ranges::sort(catalogue.notes, {}, &TensorNote::tensor);
  const bool any_f8 = std::ranges::any_of(catalogue.tensors, [](const TensorInfo& t) { return is_f8(t.dtype); });
  if (packed.empty() && orphans.empty() && !any_f8 && !config.method.empty())
    catalogue.warnings.push_back(fmt::format(
        "{} says that weights are quantized ({}), but none is found that is: what is here is taken as it is",
        config.source, config.method));
  if (!packed.empty()) catalogue.warnings.push_back(kept_text(catalogue, packed, config));
  if (!orphans.empty()) catalogue.warnings.push_back(orphans_text(catalogue, orphans));
}

}  // namespace lmq
