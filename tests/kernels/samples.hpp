#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "lmq/kernels/widen.hpp"

namespace samples {

inline constexpr std::size_t kLengths[] = {0, 1, 2, 15, 16, 17, 31, 63, 64, 65, 127, 128, 129, 1000, 4095, 4096, 4099};

/// Finite floats of a kind: 0 normal, 1 heavy tails, 2 any finite pattern, 3 few values with both zeros, 4 one value.
inline std::vector<float> floats(std::size_t count, int kind, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<float> made(count);
  for (float& value : made) {
    if (kind == 0) value = normal(random);
    if (kind == 1) value = std::pow(normal(random), 3.0f) * 1e6f;
    while (kind == 2 && !std::isfinite(value = std::bit_cast<float>(static_cast<std::uint32_t>(random())))) {
    }
    if (kind == 3) value = std::vector{0.0f, -0.0f, 0.5f, -0.5f, 0x1p-149f, -0x1p-149f}[random() % 6];
    if (kind == 4) value = -0.25f;
  }
  return made;
}

/// The same rounded to a type, as it lies in a file (types without room for a value get their largest).
inline std::vector<std::byte> bytes(lmq::DType type, std::size_t count, int kind, unsigned seed) {
  const auto values = floats(count, kind, seed);
  std::vector<std::byte> made(count * lmq::bits(type) / 8);
  lmq::reference::narrow_to(type, values, made);
  std::vector<float> back(count);
  lmq::reference::widen(type, made, back);
  for (float& value : back)
    if (!std::isfinite(value)) value = 1.0f;
  lmq::reference::narrow_to(type, back, made);
  return made;
}

/// `bytes` moved to an odd address inside `room`.
inline std::span<const std::byte> shifted(const std::vector<std::byte>& bytes, std::vector<std::byte>& room) {
  room.assign(bytes.size() + 1, std::byte{0});
  std::copy(bytes.begin(), bytes.end(), room.begin() + 1);
  return std::span<const std::byte>(room).subspan(1);
}

/// Ascending levels, some equal when `repeats`.
inline std::vector<float> levels(std::size_t count, int kind, unsigned seed, bool repeats = false) {
  auto made = floats(count, kind, seed);
  if (repeats)
    for (std::size_t k = 1; k < count; k += 3) made[k] = made[k - 1];
  std::sort(made.begin(), made.end());
  for (float& level : made) level += 0.0f;
  return made;
}

}  // namespace samples
