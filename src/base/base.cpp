#include <xxhash.h>

#include <fmt/format.h>
#include <array>

#include "lmq/base/bytes.hpp"
#include "lmq/base/digest.hpp"
#include "lmq/base/dtype.hpp"

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

}  // namespace lmq
