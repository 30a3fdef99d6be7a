#include "lmq/kernels/pack.hpp"

#include <algorithm>
#include <array>
#include <cstring>

namespace lmq {
namespace {

/// Eight codes, one per byte, side by side in the low 8 * kBits bits: neighbours are joined in pairs, fours, eights.
template <unsigned kBits>
std::uint64_t join(std::uint64_t x) noexcept {
  if constexpr (kBits == 8) return x;
  constexpr std::uint64_t kPairs = ((1ULL << 2 * kBits) - 1) * 0x0001000100010001ULL;
  constexpr std::uint64_t kFours = ((1ULL << 4 * kBits) - 1) * 0x0000000100000001ULL;
  x = (x & 0x00FF00FF00FF00FFULL) | (x & 0xFF00FF00FF00FF00ULL) >> (8 - kBits);
  x = (x & kPairs & 0x0000FFFF0000FFFFULL) | (x & kPairs & 0xFFFF0000FFFF0000ULL) >> (16 - 2 * kBits);
  return (x & kFours & 0xFFFFFFFFULL) | (x & kFours & 0xFFFFFFFF00000000ULL) >> (32 - 4 * kBits);
}

/// The reverse; bits above 8 * kBits are ignored.
template <unsigned kBits>
std::uint64_t part(std::uint64_t x) noexcept {
  if constexpr (kBits == 8) return x;
  constexpr std::uint64_t kFour = (1ULL << 4 * kBits) - 1, kCode = (1ULL << kBits) - 1;
  constexpr std::uint64_t kTwo = ((1ULL << 2 * kBits) - 1) * 0x0000000100000001ULL;
  x = (x & kFour) | (x >> 4 * kBits & kFour) << 32;
  x = (x & kTwo) | (x >> 2 * kBits & kTwo) << 16;
  return (x & kCode * 0x0001000100010001ULL) | (x >> kBits & kCode * 0x0001000100010001ULL) << 8;
}

template <unsigned kBits>
void pack(const std::uint8_t* codes, std::size_t count, std::byte* packed) noexcept {
  for (; count >= 8; count -= 8, codes += 8, packed += kBits) {
    std::uint64_t x;
    std::memcpy(&x, codes, 8);
    x = join<kBits>(x);
    std::memcpy(packed, &x, kBits);
  }
  pack_codes_reference({codes, count}, kBits, {packed, static_cast<std::size_t>(packed_bytes(count, kBits))});
}

template <unsigned kBits>
void unpack(const std::byte* packed, std::uint8_t* codes, std::size_t count) noexcept {
  for (; count >= 16; count -= 8, codes += 8, packed += kBits) {  // 16: so that 8 bytes can be read
    std::uint64_t x;
    std::memcpy(&x, packed, 8);
    x = part<kBits>(x);
    std::memcpy(codes, &x, 8);
  }
  unpack_codes_reference({packed, static_cast<std::size_t>(packed_bytes(count, kBits))}, kBits, {codes, count});
}

using Pack = void (*)(const std::uint8_t*, std::size_t, std::byte*) noexcept;
using Unpack = void (*)(const std::byte*, std::uint8_t*, std::size_t) noexcept;
constexpr std::array<Pack, 8> kPack{pack<1>, pack<2>, pack<3>, pack<4>, pack<5>, pack<6>, pack<7>, pack<8>};
constexpr std::array<Unpack, 8> kUnpack{unpack<1>, unpack<2>, unpack<3>, unpack<4>,
                                        unpack<5>, unpack<6>, unpack<7>, unpack<8>};
}  // namespace

void pack_codes(std::span<const std::uint8_t> codes, unsigned bits, std::span<std::byte> packed) noexcept {
  kPack[bits - 1](codes.data(), codes.size(), packed.data());
}

void unpack_codes(std::span<const std::byte> packed, unsigned bits, std::span<std::uint8_t> codes) noexcept {
  // Reading 8 bytes needs 16 codes for bits >= 4; narrower codes keep the last 64 / bits codes for the plain loop.
  const std::size_t plain = bits >= 4 ? 0 : std::min<std::size_t>(codes.size(), 64 / bits + 8);
  const std::size_t fast = (codes.size() - plain) / 8 * 8;
  if (plain == 0) return kUnpack[bits - 1](packed.data(), codes.data(), codes.size());
  if (fast > 0) kUnpack[bits - 1](packed.data(), codes.data(), fast);
  unpack_codes_reference(packed.subspan(fast / 8 * bits), bits, codes.subspan(fast));
}

void pack_codes_reference(std::span<const std::uint8_t> codes, unsigned bits, std::span<std::byte> packed) noexcept {
  std::ranges::fill(packed, std::byte{0});
  for (std::size_t i = 0; i < codes.size(); ++i)
    for (unsigned b = 0; b < bits; ++b) {
      const std::size_t at = i * bits + b;
      packed[at / 8] |= static_cast<std::byte>((codes[i] >> b & 1) << at % 8);
    }
}

void unpack_codes_reference(std::span<const std::byte> packed, unsigned bits, std::span<std::uint8_t> codes) noexcept {
  for (std::size_t i = 0; i < codes.size(); ++i) {
    unsigned code = 0;
    for (unsigned b = 0; b < bits; ++b) {
      const std::size_t at = i * bits + b;
      code |= (std::to_integer<unsigned>(packed[at / 8]) >> at % 8 & 1) << b;
    }
    codes[i] = static_cast<std::uint8_t>(code);
  }
}

void pack_plane(std::span<const std::uint8_t> codes, unsigned bit, std::span<std::byte> plane) noexcept {
  // Of eight bytes 0 or 1, the product brings byte j to bit 56 + j; no two of its terms meet.
  constexpr std::uint64_t kOnes = 0x0101010101010101ULL, kGather = 0x0102040810204080ULL;
  std::size_t i = 0;
  for (; i + 8 <= codes.size(); i += 8) {
    std::uint64_t x;
    std::memcpy(&x, codes.data() + i, 8);
    plane[i / 8] = static_cast<std::byte>((x >> bit & kOnes) * kGather >> 56);
  }
  pack_plane_reference(codes.subspan(i), bit, plane.subspan(i / 8));
}

void unpack_plane(std::span<const std::byte> plane, unsigned bit, std::span<std::uint8_t> codes) noexcept {
  // Each of eight copies of the byte keeps its own bit; adding 127 carries any bit to the top of its byte.
  constexpr std::uint64_t kOnes = 0x0101010101010101ULL, kOwn = 0x8040201008040201ULL;
  constexpr std::uint64_t kCarry = 0x7F7F7F7F7F7F7F7FULL;
  std::size_t i = 0;
  for (; i + 8 <= codes.size(); i += 8) {
    const std::uint64_t own = std::to_integer<std::uint64_t>(plane[i / 8]) * kOnes & kOwn;
    const std::uint64_t ones = (((own & kCarry) + kCarry) | own) >> 7 & kOnes;
    std::uint64_t x;
    std::memcpy(&x, codes.data() + i, 8);
    x |= ones << bit;
    std::memcpy(codes.data() + i, &x, 8);
  }
  unpack_plane_reference(plane.subspan(i / 8), bit, codes.subspan(i));
}

void pack_plane_reference(std::span<const std::uint8_t> codes, unsigned bit, std::span<std::byte> plane) noexcept {
  std::ranges::fill(plane, std::byte{0});
  for (std::size_t i = 0; i < codes.size(); ++i) plane[i / 8] |= static_cast<std::byte>((codes[i] >> bit & 1) << i % 8);
}

void unpack_plane_reference(std::span<const std::byte> plane, unsigned bit, std::span<std::uint8_t> codes) noexcept {
  for (std::size_t i = 0; i < codes.size(); ++i)
    codes[i] = static_cast<std::uint8_t>(codes[i] | (std::to_integer<unsigned>(plane[i / 8]) >> i % 8 & 1) << bit);
}

void count_codes(std::span<const std::uint8_t> codes, std::span<std::uint64_t, 256> counts) noexcept {
  // Equal neighbours would wait for each other's counter: eight counters take turns, emptied before they overflow.
  constexpr std::size_t kRun = std::size_t{1} << 30;
  std::array<std::array<std::uint32_t, 256>, 8> part{};
  for (std::size_t begin = 0; begin < codes.size(); begin += kRun) {
    const auto run = codes.subspan(begin, std::min(kRun, codes.size() - begin));
    std::size_t i = 0;
    for (; i + 8 <= run.size(); i += 8) {
      std::uint64_t x;
      std::memcpy(&x, run.data() + i, 8);
      for (unsigned k = 0; k < 8; ++k) ++part[k][x >> 8 * k & 0xFF];
    }
    for (; i < run.size(); ++i) ++part[0][run[i]];
    for (auto& counter : part)
      for (std::size_t s = 0; s < 256; ++s) counts[s] += counter[s], counter[s] = 0;
  }
}

}  // namespace lmq
