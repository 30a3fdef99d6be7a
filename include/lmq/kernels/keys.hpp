#pragma once
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace lmq {

/// Finite floats in ascending order as unsigned integers: key(-0) == key(+0), key(a) < key(b) iff a < b.
/// Non-negative values are 0x80000000 + pattern; negative ones the complement of their pattern, so that the upper 16
/// bits of a key are a function of the upper 16 bits of the pattern. Key 0x7FFFFFFF (that of -0) is never given.
[[nodiscard]] constexpr std::uint32_t float_key(float value) noexcept {
  const auto pattern = std::bit_cast<std::uint32_t>(value);
  if (pattern == 0x80000000u) return 0x80000000u;
  return pattern >> 31 ? ~pattern : pattern | 0x80000000u;
}

/// The float of that key; 0x7FFFFFFF, which no float has, gives the next one (+0).
[[nodiscard]] constexpr float key_float(std::uint32_t key) noexcept {
  if (key == 0x7FFFFFFFu) return 0.0f;
  return std::bit_cast<float>(key >> 31 ? key & 0x7FFFFFFFu : ~key);
}

/// The same for 16-bit patterns of a sign and magnitude type, as signed numbers: ascending with the value, -0 just
/// below +0.
[[nodiscard]] constexpr std::int16_t signed_key16(std::uint16_t pattern) noexcept {
  return static_cast<std::int16_t>(pattern >> 15 ? pattern ^ 0x7FFFu : pattern);
}
[[nodiscard]] constexpr std::uint16_t pattern_of_key16(std::int16_t key) noexcept {
  return static_cast<std::uint16_t>(key < 0 ? static_cast<std::uint16_t>(key) ^ 0x7FFFu
                                            : static_cast<std::uint16_t>(key));
}

/// True for a finite float pattern.
[[nodiscard]] constexpr bool finite_pattern(std::uint32_t pattern) noexcept {
  return (pattern & 0x7F800000u) != 0x7F800000u;
}

/// Which upper halves of keys are wanted: bit upper % 32 of word upper / 32.
using KeyFilter = std::array<std::uint32_t, 2048>;

/// Writes the keys of those floats whose key's upper half is in the filter, in order; returns how many.
/// floats  [count] at any address;   keys  [count + kFilterSlack]: what lies behind the keys is overwritten
/// About 0.6 ns per float.
inline constexpr std::size_t kFilterSlack = 64;
[[nodiscard]] std::size_t filter_keys(const std::byte* floats, std::size_t count, const KeyFilter& filter,
                                      std::uint32_t* keys) noexcept;

namespace reference {
[[nodiscard]] std::size_t filter_keys(const std::byte* floats, std::size_t count, const KeyFilter& filter,
                                      std::uint32_t* keys) noexcept;
}  // namespace reference

}  // namespace lmq
