#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace lmq {

/// The candidate with the fewest edits (insert, delete, replace a byte) from `word`, empty when none is near: more than
/// a third of its letters wrong, and more than two. Large and small letters are the same; a candidate that begins with
/// four letters or more is one edit away.
[[nodiscard]] std::string nearest(std::string_view word, std::span<const std::string_view> candidates);
/// A number of things: "1 tensor", "2,048 tensors"; `things`: their word when it is not thing + "s".
[[nodiscard]] std::string counted(std::uint64_t number, std::string_view thing, std::string_view things = {});
/// 260032 -> "260,032".
[[nodiscard]] std::string with_commas(std::uint64_t number);
/// A time as seconds, above 0: "110" (minutes), "90s", "45min", "2h", "1h30m", "1d". Errc::usage names `what`.
[[nodiscard]] double parse_duration(std::string_view text, std::string_view what);

}  // namespace lmq
