#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lmq {

/// "4G", "1.5GiB" (powers of 1024), "4GB" (of 1000), "4096" as bytes, rounded down, exact. Errc::usage names `what`.
[[nodiscard]] std::uint64_t parse_size(std::string_view text, std::string_view what);
/// 1536 -> "1.5 KiB".
[[nodiscard]] std::string format_bytes(std::uint64_t bytes);
/// Seconds as "3.2 s", "4 min 10 s", "2 h 05 min".
[[nodiscard]] std::string format_duration(double seconds);
/// True for well-formed UTF-8 without NUL.
[[nodiscard]] bool is_clean_utf8(std::string_view text) noexcept;
/// A text from outside as it may stand in a one-line message: control characters and bytes that are no UTF-8 become
/// \xNN, and what is longer than `limit` bytes is cut and ends in "...".
[[nodiscard]] std::string printable(std::string_view text, std::size_t limit = 300);

}  // namespace lmq
