#include "companion_names.hpp"

#include <algorithm>

namespace lmq {
namespace {

constexpr std::string_view kSeparators = "./:";
/// Words between underscores.
constexpr std::string_view kWords[] = {"zero",      "zeros", "zp",      "absmax", "quant",     "codebook", "codebooks",
                                       "biases",    "scb",   "suh",     "svh",    "su",        "sv",       "shape",
                                       "invperm",   "perm",  "groups",  "meta",   "centroids", "amax",     "shift",
                                       "workspace", "lut",   "scaling", "qlut",   "shifts",    "luts"};
/// Parts of words: "qscales", "rowscale", "qzeros".
constexpr std::string_view kPartsOfWords[] = {"scale", "zeros"};
/// What a tool puts before or behind the name of a packed weight.
constexpr std::string_view kPackedSuffixes[] = {"_blocks", "_packed", "_data", "_qdata"};
constexpr std::string_view kWholeModule[] = {
    "weight",   "qweight", "w_q",           "q_weight", "codes",  "qidxs",  "trellis",       "_data", "weight_packed",
    "int_data", "indices", "dense_weights", "qdata",    "qvalue", "packed", "packed_weight", "b"};
/// Beside words in the name of a scale and nothing more.
constexpr std::string_view kFillers[] = {"", "weight", "w", "point", "points", "inv", "q", "max", "qweight", "kernel"};
constexpr std::string_view kPlaces[] = {"position", "mask", "token", "relative", "idx", "index"};

bool is_word(std::string_view part) noexcept {
  return std::ranges::find(kWords, part) != std::end(kWords) ||
         std::ranges::any_of(kPartsOfWords,
                             [&](std::string_view word) { return part.find(word) != std::string_view::npos; });
}

}  // namespace

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

std::string_view module_of(std::string_view name) noexcept {
  const auto at = name.find_last_of(kSeparators);
  return at == name.npos ? std::string_view{} : name.substr(0, at);
}
std::string_view leaf_of(std::string_view name) noexcept {
  const auto at = name.find_last_of(kSeparators);
  return at == name.npos ? name : name.substr(at + 1);
}

std::size_t first_word(std::string_view leaf) noexcept {
  if (leaf == "s") return 0;  // Marlin's scales
  for (std::size_t begin = 0; begin <= leaf.size();) {
    const std::size_t end = std::min(leaf.find('_', begin), leaf.size());
    if (is_word(leaf.substr(begin, end - begin))) return begin;
    begin = end + 1;
  }
  return leaf.npos;
}

bool is_word_alone(std::string_view leaf) noexcept {
  if (first_word(leaf) == leaf.npos) return false;
  for (std::size_t begin = 0; begin <= leaf.size();) {
    const std::size_t end = std::min(leaf.find('_', begin), leaf.size());
    const std::string_view part = leaf.substr(begin, end - begin);
    const bool number = part.find_first_not_of("0123456789") == part.npos;
    if (!number && leaf != "s" && !is_word(part) && std::ranges::find(kFillers, part) == std::end(kFillers))
      return false;
    begin = end + 1;
  }
  return true;
}

bool is_integer_companion(std::string_view leaf) noexcept {
  const bool zeros = leaf.find("zero") != leaf.npos || leaf == "zp";
  return leaf == "g_idx" || leaf == "weight_g_idx" || leaf == "weight_shape" || (zeros && is_word_alone(leaf));
}

bool is_whole_module(std::string_view leaf) noexcept {
  return std::ranges::find(kWholeModule, leaf) != std::end(kWholeModule);
}

bool names_places(std::string_view leaf) noexcept {
  return std::ranges::any_of(kPlaces, [&](std::string_view place) { return leaf.find(place) != leaf.npos; });
}

std::string_view stem_of(std::string_view packed) noexcept {
  for (const std::string_view suffix : kPackedSuffixes)
    if (packed.ends_with(suffix) && packed.size() > suffix.size()) packed.remove_suffix(suffix.size());
  return packed;
}

bool shares_module(std::string_view leaf, std::string_view packed) noexcept {
  const std::string_view stem = stem_of(packed);
  return is_whole_module(packed) || stem.size() == packed.size() || leaf.starts_with(stem);
}

bool belongs(std::string_view leaf, std::size_t word, std::string_view packed) noexcept {
  std::string_view stem = leaf.substr(0, word);
  while (stem.ends_with('_')) stem.remove_suffix(1);
  for (const std::string_view of_module : {"", "input", "output", "act", "comfy"})
    if (stem == of_module) return is_whole_module(packed);
  packed = stem_of(packed);
  if (!packed.starts_with(stem)) return false;
  return packed.size() == stem.size() || packed[stem.size()] == '_';
}

}  // namespace lmq
