#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace lmq {

/// A bit whose share of zeros is learnt from those before it: after n bits it moves by 2 / (2 n + 3) of the way to the
/// bit that came, at least by 2 / 513 (Krichevsky & Trofimov 1981 for small n).
struct AdaptiveBit {
  std::uint32_t zeros = 1U << 15;  ///< in 2^-16
  std::uint32_t seen = 0;
  void learn(unsigned bit) noexcept;
};

/// Binary range coder (Martin 1979; carries as in LZMA). Zero bytes at the end are left out.
class BitEncoder {
 public:
  void put(AdaptiveBit& bit, unsigned value);
  /// Bits that are as likely as not, the least significant first.
  void put_even(std::uint32_t value, unsigned bits);
  [[nodiscard]] std::vector<std::byte> take();

 private:
  void split(std::uint32_t bound, unsigned value);
  void shift();
  std::uint64_t low_ = 0, held_ = 0;  ///< held_: bytes a carry may still change
  std::uint32_t range_ = 0xFFFFFFFF;
  std::uint8_t cache_ = 0;
  bool begun_ = false;
  std::vector<std::byte> out_;
};

/// The reverse. Behind the end it reads zeros.
class BitDecoder {
 public:
  explicit BitDecoder(std::span<const std::byte> bytes) noexcept;
  [[nodiscard]] unsigned get(AdaptiveBit& bit) noexcept;
  [[nodiscard]] std::uint32_t get_even(unsigned bits) noexcept;
  /// True when no byte is left.
  [[nodiscard]] bool finished() const noexcept { return at_ >= bytes_.size(); }

 private:
  unsigned split(std::uint32_t bound) noexcept;
  std::uint32_t next() noexcept;
  std::span<const std::byte> bytes_;
  std::size_t at_ = 0;
  std::uint32_t range_ = 0xFFFFFFFF, code_ = 0;
};

/// Whole numbers around 0: zero or not, sign, |x| - 1 in unary up to 7, the rest r by the width of r + 1 in unary and
/// its bits below the highest.
class AdaptiveNumber {
 public:
  static constexpr std::int32_t kMax = 1 << 16;
  void put(BitEncoder& to, std::int32_t value);
  /// |result| <= kMax * 2; anything when the bytes are none.
  [[nodiscard]] std::int32_t get(BitDecoder& from) noexcept;

 private:
  static constexpr std::uint32_t kUnary = 7, kWidest = 16;
  AdaptiveBit zero_, sign_;
  std::array<AdaptiveBit, kUnary> unary_;
  std::array<AdaptiveBit, kWidest + 1> width_;
};

}  // namespace lmq
