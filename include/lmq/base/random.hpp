#pragma once
#include <cstdint>

namespace lmq {

/// A bijection of 64 bits in which every input bit moves about half of the output bits. Source: Steele, Lea & Flood
/// 2014, Fast Splittable Pseudorandom Number Generators, section 5 (variant 13 of the finaliser).
[[nodiscard]] constexpr std::uint64_t mix64(std::uint64_t x) noexcept {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

/// Key of a stream of draws: streams of other seeds or subjects have nothing to do with each other.
[[nodiscard]] constexpr std::uint64_t draw_key(std::uint64_t seed, std::uint64_t subject) noexcept {
  return mix64(seed + 0x9E3779B97F4A7C15u * mix64(subject + 1));
}

inline constexpr std::uint64_t kDrawStep = 0x9E3779B97F4A7C15u;  ///< between neighbouring counters; odd

/// Number `counter` of a stream, uniform over 32 bits; a pure function, so any part of a stream can be had anywhere.
/// Numbers 2 i and 2 i + 1 are the lower and the upper half of one mixed counter.
[[nodiscard]] constexpr std::uint32_t draw32(std::uint64_t key, std::uint64_t counter) noexcept {
  return static_cast<std::uint32_t>(mix64(key + kDrawStep * (counter / 2 + 1)) >> (counter % 2 * 32));
}

}  // namespace lmq
