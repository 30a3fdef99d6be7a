#include "lmq/base/text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "lmq/base/error.hpp"
#include "lmq/base/words.hpp"

namespace lmq {
namespace {

struct Unit {
  std::string_view name;  // in lower case
  std::uint64_t size;
};

constexpr std::uint64_t power(std::uint64_t base, int exponent) {
  return exponent == 0 ? 1 : base * power(base, exponent - 1);
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

/// Bytes of a unit of size: nothing, B, then K, M, G, T, P, E with powers of 1024 alone and with "i", of 1000 with "B".
std::uint64_t bytes_of_unit(std::string_view text) {
  constexpr std::string_view kLetters = "kmgtpe";
  const std::string unit = lower(text);
  if (unit.empty() || unit == "b") return 1;
  const auto at = kLetters.find(unit[0]);
  if (at == kLetters.npos) return 0;
  const std::string_view tail = std::string_view(unit).substr(1);
  const int exponent = static_cast<int>(at) + 1;
  if (tail.empty() || tail == "i" || tail == "ib") return power(1024, exponent);
  return tail == "b" ? power(1000, exponent) : 0;
}

/// A number in digits, rounded down to 18 of its decimals; never taken for a double.
struct Decimal {
  std::uint64_t whole = 0, fraction = 0, of = 1;  // whole + fraction / of
  std::size_t length = 0;                         // in the text; 0: no number
};

/// "12", "1.5", "2.", ".5" at the front of `text`.
Decimal decimal_at_front(std::string_view text) {
  constexpr std::uint64_t kMax = std::numeric_limits<std::uint64_t>::max() / 10 - 1;
  Decimal out;
  std::size_t at = 0, digits = 0;
  const auto is_digit = [&] { return at < text.size() && text[at] >= '0' && text[at] <= '9'; };
  for (; is_digit(); ++at, ++digits) {
    if (out.whole > kMax) return {};
    out.whole = 10 * out.whole + static_cast<unsigned>(text[at] - '0');
  }
  if (at < text.size() && text[at] == '.')
    for (++at; is_digit(); ++at, ++digits)
      if (out.of < kMax / 10) out.fraction = 10 * out.fraction + static_cast<unsigned>(text[at] - '0'), out.of *= 10;
  if (digits > 0) out.length = at;
  return out;
}

/// Edits (insert, delete, replace) that turn a into b.
std::size_t edits(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i] != b[j]);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

}  // namespace

std::uint64_t parse_size(std::string_view text, std::string_view what) {
  constexpr auto kMax = static_cast<unsigned __int128>(std::numeric_limits<std::int64_t>::max());
  const Decimal number = decimal_at_front(text);
  std::string_view unit = text.substr(number.length);
  while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  const std::uint64_t size = number.length == 0 || (unit.empty() && text.back() == ' ') ? 0 : bytes_of_unit(unit);
  const unsigned __int128 wide = size;
  const unsigned __int128 bytes = wide * number.whole + wide * number.fraction / number.of;
  if (size == 0 || bytes > kMax)
    fail(Errc::usage, fmt::format("{}: '{}' is no size (examples: 512M, 4G or 4GiB: powers of 1024; 4GB: of 1000)",
                                  what, printable(text)));
  return static_cast<std::uint64_t>(bytes);
}

double parse_duration(std::string_view text, std::string_view what) {
  constexpr std::array kUnits{Unit{"s", 1},    Unit{"sec", 1},  Unit{"m", 60},
                              Unit{"min", 60}, Unit{"h", 3600}, Unit{"d", 86400}};
  double seconds = 0;
  bool good = !text.empty();
  for (std::string_view rest = text; good && !rest.empty();) {
    const Decimal number = decimal_at_front(rest);
    const std::string_view behind = rest.substr(number.length);
    const std::string_view unit = behind.substr(0, std::min(behind.find_first_of("0123456789. "), behind.size()));
    const auto known = std::ranges::find(kUnits, unit, &Unit::name);
    const bool bare = unit.empty() && rest == text && behind.empty();  // a number alone: minutes
    good = number.length > 0 && (bare || known != kUnits.end());
    if (!good) break;
    seconds +=
        (static_cast<double>(number.whole) + static_cast<double>(number.fraction) / static_cast<double>(number.of)) *
        static_cast<double>(bare ? 60 : known->size);
    rest = behind.substr(unit.size());
    while (!rest.empty() && rest.front() == ' ') rest.remove_prefix(1);
  }
  if (!good || !(seconds > 0) || seconds > 1e9)
    fail(Errc::usage, fmt::format("{}: '{}' is no time (examples: 110 for minutes, 90s, 45min, 2h, 1h30m, 1d)", what,
                                  printable(text)));
  return seconds;
}

std::string format_bytes(std::uint64_t bytes) {
  constexpr std::array kUnits{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (; value >= 1024 && unit + 1 < kUnits.size(); ++unit) value /= 1024;
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.{}f} {}", value, value < 10 ? 2 : 1, kUnits[unit]);
}

std::string format_duration(double seconds) {
  if (seconds < 60) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<std::uint64_t>(seconds + 0.5);
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole / 60 % 60);
}

std::string nearest(std::string_view word, std::span<const std::string_view> candidates) {
  constexpr std::size_t kLongest = 256;
  if (word.empty() || word.size() > kLongest) return {};
  const std::string wanted = lower(word);
  std::string_view best;
  std::size_t best_edits = std::max<std::size_t>(2, word.size() / 3) + 1;
  for (const std::string_view candidate : candidates) {
    if (candidate.size() > kLongest) continue;
    const std::string known = lower(candidate);
    const bool begins = known.size() > wanted.size() && wanted.size() >= 4 && known.starts_with(wanted);
    const std::size_t distance = begins ? 1 : edits(wanted, known);
    if (distance < best_edits && distance < candidate.size()) best_edits = distance, best = candidate;
  }
  return std::string(best);
}

std::string counted(std::uint64_t number, std::string_view thing, std::string_view things) {
  if (number == 1) return fmt::format("1 {}", thing);
  return things.empty() ? fmt::format("{} {}s", with_commas(number), thing)
                        : fmt::format("{} {}", with_commas(number), things);
}

std::string with_commas(std::uint64_t number) {
  std::string text = fmt::format("{}", number);
  for (std::size_t at = text.size(); at > 3;) text.insert(at -= 3, 1, ',');
  return text;
}

namespace {
/// Bytes of the well-formed UTF-8 character (not NUL) at the front of a non-empty text, 0 when there is none.
std::size_t character_bytes(std::string_view text) noexcept {
  const auto byte = [&](std::size_t at) { return static_cast<unsigned char>(text[at]); };
  const unsigned char lead = byte(0);
  const std::size_t extra = lead < 0x80 ? 0 : lead < 0xC2 ? 9 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : lead < 0xF5 ? 3 : 9;
  if (lead == 0 || extra == 9 || extra >= text.size()) return 0;
  std::uint32_t point = extra == 0 ? lead : lead & (0x3Fu >> extra);
  for (std::size_t k = 1; k <= extra; ++k) {
    if ((byte(k) & 0xC0) != 0x80) return 0;
    point = point << 6 | (byte(k) & 0x3Fu);
  }
  const bool overlong = (extra == 2 && point < 0x800) || (extra == 3 && point < 0x10000);
  return overlong || point > 0x10FFFF || (point >= 0xD800 && point < 0xE000) ? 0 : extra + 1;
}
}  // namespace

bool is_clean_utf8(std::string_view text) noexcept {
  while (!text.empty()) {
    const std::size_t bytes = character_bytes(text);
    if (bytes == 0) return false;
    text.remove_prefix(bytes);
  }
  return true;
}

std::string printable(std::string_view text, std::size_t limit) {
  std::string shown;
  while (!text.empty()) {
    const std::size_t bytes = character_bytes(text);
    const auto lead = static_cast<unsigned char>(text[0]);
    const bool plain =
        bytes > 0 && lead >= 0x20 && lead != 0x7F && !(lead == 0xC2 && static_cast<unsigned char>(text[1]) < 0xA0);
    const std::string piece = plain ? std::string(text.substr(0, bytes)) : fmt::format("\\x{:02x}", lead);
    if (shown.size() + piece.size() > limit) return shown + "...";
    shown += piece;
    text.remove_prefix(plain ? bytes : 1);
  }
  return shown;
}

}  // namespace lmq
