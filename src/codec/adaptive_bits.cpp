#include "adaptive_bits.hpp"

#include <algorithm>
#include <bit>

namespace lmq {
namespace {
constexpr std::uint32_t kMaxSeen = 255, kRarest = 64;
constexpr std::uint32_t kRenew = 1U << 24;
}  // namespace

void AdaptiveBit::learn(unsigned bit) noexcept {
  const auto here = static_cast<std::int32_t>(zeros), aim = bit == 0 ? 1 << 16 : 0;
  const std::int32_t moved = here + (aim - here) * 2 / static_cast<std::int32_t>(2 * seen + 3);
  zeros = static_cast<std::uint32_t>(
      std::clamp(moved, static_cast<std::int32_t>(kRarest), static_cast<std::int32_t>((1U << 16) - kRarest)));
  seen = std::min(seen + 1, kMaxSeen);
}

void BitEncoder::shift() {
  if (low_ < 0xFF000000 || low_ > 0xFFFFFFFF) {
    const auto carry = static_cast<std::uint8_t>(low_ >> 32);
    if (begun_) out_.push_back(static_cast<std::byte>(cache_ + carry));  // what would come first is always 0
    begun_ = true;
    for (; held_ > 0; --held_) out_.push_back(static_cast<std::byte>(0xFF + carry));
    cache_ = static_cast<std::uint8_t>(low_ >> 24);
  } else {
    ++held_;
  }
  low_ = (low_ & 0xFFFFFF) << 8;
}

void BitEncoder::split(std::uint32_t bound, unsigned value) {
  if (value == 0) {
    range_ = bound;
  } else {
    low_ += bound;
    range_ -= bound;
  }
  for (; range_ < kRenew; range_ <<= 8) shift();
}

void BitEncoder::put(AdaptiveBit& bit, unsigned value) {
  split((range_ >> 16) * bit.zeros, value);
  bit.learn(value);
}

void BitEncoder::put_even(std::uint32_t value, unsigned bits) {
  for (unsigned b = 0; b < bits; ++b) split(range_ >> 1, value >> b & 1);
}

std::vector<std::byte> BitEncoder::take() {
  for (int k = 0; k < 5; ++k) shift();
  while (!out_.empty() && out_.back() == std::byte{0}) out_.pop_back();
  return std::move(out_);
}

BitDecoder::BitDecoder(std::span<const std::byte> bytes) noexcept : bytes_(bytes) {
  for (int k = 0; k < 4; ++k) code_ = code_ << 8 | next();
}

std::uint32_t BitDecoder::next() noexcept {
  const std::size_t at = at_++;
  return at < bytes_.size() ? std::to_integer<std::uint32_t>(bytes_[at]) : 0;
}

unsigned BitDecoder::split(std::uint32_t bound) noexcept {
  const unsigned value = code_ < bound ? 0 : 1;
  if (value == 0) {
    range_ = bound;
  } else {
    code_ -= bound;
    range_ -= bound;
  }
  for (; range_ < kRenew; range_ <<= 8) code_ = code_ << 8 | next();
  return value;
}

unsigned BitDecoder::get(AdaptiveBit& bit) noexcept {
  const unsigned value = split((range_ >> 16) * bit.zeros);
  bit.learn(value);
  return value;
}

std::uint32_t BitDecoder::get_even(unsigned bits) noexcept {
  std::uint32_t value = 0;
  for (unsigned b = 0; b < bits; ++b) value |= split(range_ >> 1) << b;
  return value;
}

void AdaptiveNumber::put(BitEncoder& to, std::int32_t value) {
  to.put(zero_, value != 0);
  if (value == 0) return;
  to.put(sign_, value < 0);
  const auto size = static_cast<std::uint32_t>(value < 0 ? -value : value) - 1;
  for (std::uint32_t u = 0; u < kUnary; ++u) {
    to.put(unary_[u], size > u);
    if (size <= u) return;
  }
  const std::uint32_t rest = size - kUnary + 1;
  const auto width = static_cast<std::uint32_t>(std::bit_width(rest)) - 1;
  for (std::uint32_t w = 0; w < width; ++w) to.put(width_[w], 1);
  if (width < kWidest) to.put(width_[width], 0);
  to.put_even(rest ^ 1U << width, width);
}

std::int32_t AdaptiveNumber::get(BitDecoder& from) noexcept {
  if (from.get(zero_) == 0) return 0;
  const bool negative = from.get(sign_) != 0;
  std::uint32_t size = 0;
  while (size < kUnary && from.get(unary_[size]) != 0) ++size;
  if (size == kUnary) {
    std::uint32_t width = 0;
    while (width < kWidest && from.get(width_[width]) != 0) ++width;
    size += (1U << width | from.get_even(width)) - 1;
  }
  const auto value = static_cast<std::int32_t>(size) + 1;
  return negative ? -value : value;
}

}  // namespace lmq
