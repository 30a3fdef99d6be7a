#include <xxhash.h>

#include <fmt/format.h>
#include <array>
#include <charconv>
#include <cmath>

#include "lmq/base/bytes.hpp"
#include "lmq/base/digest.hpp"
#include "lmq/base/dtype.hpp"
#include "lmq/base/text.hpp"

namespace lmq {

void fail(Errc code, const std::string& what) { throw Error(code, what); }

namespace {
struct DTypeRow {
  DType type;
  std::string_view name;
  std::size_t bits;
  bool is_float;
};
constexpr std::array kDTypes{
    DTypeRow{DType::boolean, "BOOL", 8, false},
    DTypeRow{DType::u8, "U8", 8, false},
    DTypeRow{DType::i8, "I8", 8, false},
    DTypeRow{DType::i16, "I16", 16, false},
    DTypeRow{DType::u16, "U16", 16, false},
    DTypeRow{DType::i32, "I32", 32, false},
    DTypeRow{DType::u32, "U32", 32, false},
    DTypeRow{DType::i64, "I64", 64, false},
    DTypeRow{DType::u64, "U64", 64, false},
    DTypeRow{DType::f16, "F16", 16, true},
    DTypeRow{DType::bf16, "BF16", 16, true},
    DTypeRow{DType::f32, "F32", 32, true},
    DTypeRow{DType::f64, "F64", 64, true},
    DTypeRow{DType::c64, "C64", 64, false},
    DTypeRow{DType::f8_e4m3, "F8_E4M3", 8, true},
    DTypeRow{DType::f8_e5m2, "F8_E5M2", 8, true},
    DTypeRow{DType::f8_e8m0, "F8_E8M0", 8, false},
    DTypeRow{DType::f8_e4m3fnuz, "F8_E4M3FNUZ", 8, true},
    DTypeRow{DType::f8_e5m2fnuz, "F8_E5M2FNUZ", 8, true},
    DTypeRow{DType::f4, "F4", 4, false},
    DTypeRow{DType::f6_e2m3, "F6_E2M3", 6, false},
    DTypeRow{DType::f6_e3m2, "F6_E3M2", 6, false},
};
const DTypeRow& row(DType type) noexcept {
  for (const DTypeRow& candidate : kDTypes)
    if (candidate.type == type) return candidate;
  return kDTypes[0];
}
}  // namespace

std::size_t bits(DType type) noexcept { return row(type).bits; }
std::string_view name(DType type) noexcept { return row(type).name; }
bool is_float(DType type) noexcept { return row(type).is_float; }

std::optional<DType> parse_dtype(std::string_view name) noexcept {
  for (const DTypeRow& candidate : kDTypes)
    if (candidate.name == name) return candidate.type;
  return std::nullopt;
}

std::optional<DType> dtype_from_id(std::uint8_t id) noexcept {
  for (const DTypeRow& candidate : kDTypes)
    if (static_cast<std::uint8_t>(candidate.type) == id) return candidate.type;
  return std::nullopt;
}

std::span<const std::byte> ByteReader::raw(std::uint64_t count, std::string_view field) {
  if (count > left()) short_of(count, 1, field);
  const auto taken = bytes_.subspan(offset_, static_cast<std::size_t>(count));
  offset_ += taken.size();
  return taken;
}

std::string ByteReader::text(std::string_view field) {
  const auto bytes = raw(le<std::uint32_t>(field), field);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void ByteReader::refuse(const std::string& what) const {
  fail(Errc::malformed, fmt::format("{} at byte {}: {}", source_, offset_, what));
}

void ByteReader::short_of(std::uint64_t count, std::size_t size, std::string_view field) const {
  refuse(fmt::format("{} needs {} x {} bytes, {} are left", field, count, size, left()));
}

std::uint64_t digest64(std::span<const std::byte> bytes) noexcept { return XXH3_64bits(bytes.data(), bytes.size()); }

std::string digest128_hex(std::span<const std::byte> bytes) {
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

std::string hex(std::uint64_t value) { return fmt::format("{:016x}", value); }

std::uint64_t parse_size(std::string_view text, std::string_view what) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  int power = -1;
  if (error == std::errc{} && std::isfinite(number) && number >= 0) {
    constexpr std::string_view kUnits = "KMGTP";
    const std::string_view tail = unit.empty() ? unit : unit.substr(1);
    if (unit.empty() || unit == "B")
      power = 0;
    else if (const auto at = kUnits.find(unit[0]); at != kUnits.npos && (tail.empty() || tail == "B" || tail == "iB"))
      power = static_cast<int>(at) + 1;
  }
  const double bytes = power < 0 ? -1 : std::ldexp(number, 10 * power);
  if (bytes < 0 || bytes >= 9.2e18)
    fail(Errc::usage, fmt::format("{}: '{}' is no size (examples: 512M, 4G, 1.5GiB)", what, text));
  return static_cast<std::uint64_t>(bytes);
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
