#include "deflate.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "deflate_codes.hpp"

namespace lmq {
namespace {

constexpr std::size_t kWindow = 32768, kShortest = 3, kLongest = 258;
constexpr std::size_t kHashBits = 15, kMaxTries = 96, kBlockTokens = std::size_t{1} << 16;
constexpr std::size_t kGoodLength = 64;  // a match of so many bytes is taken without a look at the next place

/// Finds earlier copies of what comes next: chains of places whose first three bytes have the same hash.
class Matcher {
 public:
  explicit Matcher(std::span<const std::byte> bytes)
      : bytes_(bytes), head_(std::size_t{1} << kHashBits, kNone), before_(kWindow, kNone) {}

  /// The longest match for the bytes at `at`, the nearest of those; length 0: none of three bytes.
  [[nodiscard]] Token find(std::size_t at) const {
    Token best;
    const std::size_t most = std::min(kLongest, bytes_.size() - at);
    if (most < kShortest) return best;
    std::int64_t place = head_[hash(at)];
    for (std::size_t tries = 0; tries < kMaxTries && place != kNone; ++tries) {
      const auto from = static_cast<std::size_t>(place);
      if (at - from > kWindow) break;
      const std::size_t length = common(from, at, most);
      if (length > best.length && length >= kShortest)
        best = {static_cast<std::uint16_t>(length), static_cast<std::uint16_t>(at - from)};
      if (length == most) break;
      place = before_[from % kWindow];
    }
    return best;
  }

  void enter(std::size_t at) {
    if (bytes_.size() - at < kShortest) return;
    std::int64_t& head = head_[hash(at)];
    before_[at % kWindow] = head;
    head = static_cast<std::int64_t>(at);
  }

 private:
  static constexpr std::int64_t kNone = -1;
  [[nodiscard]] std::size_t hash(std::size_t at) const {
    const auto byte = [&](std::size_t i) { return std::to_integer<std::uint32_t>(bytes_[at + i]); };
    return ((byte(0) | byte(1) << 8 | byte(2) << 16) * 0x9E3779B1U) >> (32 - kHashBits);
  }
  [[nodiscard]] std::size_t common(std::size_t a, std::size_t b, std::size_t most) const {
    std::size_t length = 0;
    while (length < most && bytes_[a + length] == bytes_[b + length]) ++length;
    return length;
  }
  std::span<const std::byte> bytes_;
  std::vector<std::int64_t> head_, before_;
};

/// The tokens of a text, a block at a time: a byte as a token, or a match unless the next place has a longer one.
class Tokens {
 public:
  explicit Tokens(std::span<const std::byte> bytes)
      : bytes_(bytes), matcher_(bytes), next_(bytes.empty() ? Token{} : matcher_.find(0)) {}

  /// The next tokens, kBlockTokens or what is left; `block` is replaced.
  void next(std::vector<Token>& block) {
    block.clear();
    while (block.size() < kBlockTokens && at_ < bytes_.size()) block.push_back(next());
  }
  /// Bytes that the tokens so far stand for.
  [[nodiscard]] std::size_t done() const noexcept { return at_; }

 private:
  Token next() {
    const Token match = next_;
    matcher_.enter(at_);
    next_ = at_ + 1 < bytes_.size() ? matcher_.find(at_ + 1) : Token{};
    if (match.length == 0 || (match.length < kGoodLength && next_.length > match.length))
      return {0, std::to_integer<std::uint16_t>(bytes_[at_++])};
    for (std::size_t i = 1; i < match.length; ++i) matcher_.enter(at_ + i);
    at_ += match.length;
    next_ = at_ < bytes_.size() ? matcher_.find(at_) : Token{};
    return match;
  }
  std::span<const std::byte> bytes_;
  Matcher matcher_;
  Token next_;  // the match at at_
  std::size_t at_ = 0;
};

std::uint32_t adler32(std::span<const std::byte> bytes) noexcept {
  std::uint32_t a = 1, b = 0;
  for (const std::byte byte : bytes) {
    a = (a + std::to_integer<std::uint32_t>(byte)) % 65521;
    b = (b + a) % 65521;
  }
  return b << 16 | a;
}

}  // namespace

std::vector<std::byte> deflate(std::span<const std::byte> bytes) {
  DeflateWriter out;
  out.bits(0x78, 8), out.bits(0xDA, 8);  // window of 32 KiB, slowest; the two are a multiple of 31
  Tokens tokens(bytes);
  std::vector<Token> block;  // one alone: all tokens may take four times the bytes
  std::size_t begin = 0;
  do {
    tokens.next(block);
    out.block(block, bytes.subspan(begin, tokens.done() - begin), tokens.done() == bytes.size());
    begin = tokens.done();
  } while (begin < bytes.size());
  out.align();
  const std::uint32_t check = adler32(bytes);
  for (int shift = 24; shift >= 0; shift -= 8) out.bits(check >> shift & 0xFF, 8);
  return out.take();
}

std::vector<std::byte> shuffle(std::span<const std::byte> values, std::size_t width) {
  const std::size_t count = values.size() / width;
  std::vector<std::byte> planes(values.size());
  for (std::size_t i = 0; i < count; ++i)
    for (std::size_t k = 0; k < width; ++k) planes[k * count + i] = values[i * width + k];
  return planes;
}

std::vector<std::byte> unshuffle(std::span<const std::byte> planes, std::size_t width) {
  const std::size_t count = planes.size() / width;
  std::vector<std::byte> values(planes.size());
  for (std::size_t i = 0; i < count; ++i)
    for (std::size_t k = 0; k < width; ++k) values[i * width + k] = planes[k * count + i];
  return values;
}

}  // namespace lmq
