#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace lmq {

// What names say of weights that are quantized already, and of what lies beside them. A name's parts stand between
// '.', '/' or ':'; the last is its leaf, those before it name its module. Leaves below are in lower case.

[[nodiscard]] std::string lower(std::string_view text);
/// "X.weight_scale" is the leaf "weight_scale" of the module "X".
[[nodiscard]] std::string_view module_of(std::string_view name) noexcept;
[[nodiscard]] std::string_view leaf_of(std::string_view name) noexcept;

/// Where in a leaf the first word begins that names what a quantized weight comes with ("scales", "zero", "absmax",
/// "lut", ...), or npos. Such words say nothing alone: the tensor must lie beside a weight that can be a quantized one.
[[nodiscard]] std::size_t first_word(std::string_view leaf) noexcept;
/// Does a leaf say nothing but that it is the scale, shift or zero point of a weight ("weight_scale", "scales", "zp")?
[[nodiscard]] bool is_word_alone(std::string_view leaf) noexcept;
/// Does an integer leaf belong to a packed weight by its name alone ("qzeros", "g_idx", "weight_shape")?
[[nodiscard]] bool is_integer_companion(std::string_view leaf) noexcept;

/// Names that stand for the whole module: what lies beside them belongs to them.
[[nodiscard]] bool is_whole_module(std::string_view leaf) noexcept;
/// Names of integers that are places, kinds or masks.
[[nodiscard]] bool names_places(std::string_view leaf) noexcept;
/// The name of a packed weight without what a tool puts behind it ("down_proj_blocks").
[[nodiscard]] std::string_view stem_of(std::string_view packed) noexcept;
/// Can a matrix called `leaf` be a table of the codes called `packed`? Where a module holds several packed weights, only
/// by their names.
[[nodiscard]] bool shares_module(std::string_view leaf, std::string_view packed) noexcept;
/// Does what is called `leaf`, with a word at `word`, belong to the weight called `packed`?
[[nodiscard]] bool belongs(std::string_view leaf, std::size_t word, std::string_view packed) noexcept;

}  // namespace lmq
