#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

namespace lmq {

/// Bytes of `count` codes of `bits` bits.
[[nodiscard]] constexpr std::uint64_t packed_bytes(std::uint64_t count, unsigned bits) noexcept {
  return count / 8 * bits + (count % 8 * bits + 7) / 8;
}
/// Codes (each < 2^bits, bits 1..8) one after another, least significant bit first; the last byte is filled with zeros.
/// packed.size() == packed_bytes(codes.size(), bits). About 0.3 ns per code.
void pack_codes(std::span<const std::uint8_t> codes, unsigned bits, std::span<std::byte> packed) noexcept;
/// The reverse.
void unpack_codes(std::span<const std::byte> packed, unsigned bits, std::span<std::uint8_t> codes) noexcept;
/// Bit `bit` of the codes as one plane, packed_bytes(codes.size(), 1) bytes: code i in bit i % 8 of byte i / 8, the
/// last byte filled with zeros. About 0.15 ns per code.
void pack_plane(std::span<const std::uint8_t> codes, unsigned bit, std::span<std::byte> plane) noexcept;
/// The reverse: sets bit `bit` of the codes where the plane has a one; the other bits stay.
void unpack_plane(std::span<const std::byte> plane, unsigned bit, std::span<std::uint8_t> codes) noexcept;
/// Bit by bit: the meaning, and the twins for tests.
void pack_plane_reference(std::span<const std::uint8_t> codes, unsigned bit, std::span<std::byte> plane) noexcept;
void unpack_plane_reference(std::span<const std::byte> plane, unsigned bit, std::span<std::uint8_t> codes) noexcept;
void pack_codes_reference(std::span<const std::uint8_t> codes, unsigned bits, std::span<std::byte> packed) noexcept;
void unpack_codes_reference(std::span<const std::byte> packed, unsigned bits, std::span<std::uint8_t> codes) noexcept;

/// counts[s] += number of codes equal to s.
void count_codes(std::span<const std::uint8_t> codes, std::span<std::uint64_t, 256> counts) noexcept;

/// values[i] = levels[codes[i]]; every code < levels.size(). About 0.1 ns per value for up to 32 levels, 0.5 ns above.
void table_values(std::span<const std::uint8_t> codes, std::span<const float> levels, std::span<float> values) noexcept;
/// values[i] = (row * columns[i]) * values[i], each product rounded to float; -0 becomes +0.
void scale_values(float row, std::span<const float> columns, std::span<float> values) noexcept;
/// values[i] = low + float(codes[i]) * step, each operation rounded to float.
void grid_values(std::span<const std::uint8_t> codes, float low, float step, std::span<float> values) noexcept;

}  // namespace lmq
