#include "lmq/codec/model.hpp"

#include <algorithm>
#include <bit>

namespace lmq {
namespace {
constexpr std::uint64_t kOne = 1ULL << 32;

/// One symbol while frequencies are fitted: what one more gains, what one fewer loses, in bits times 2^32.
struct Share {
  std::uint64_t count = 0;
  std::uint32_t freq = 0;
  std::uint64_t gain = 0, loss = 0;
  void set(std::uint32_t f) noexcept {
    freq = f;
    below_ = f > 1 ? log2_q32(f - 1) : 0, here_ = log2_q32(f), above_ = log2_q32(f + 1);
    compare();
  }
  void one_more() noexcept {
    below_ = here_, here_ = above_, above_ = log2_q32(++freq + 1);
    compare();
  }
  void one_fewer() noexcept {
    above_ = here_, here_ = below_, below_ = --freq > 1 ? log2_q32(freq - 1) : 0;
    compare();
  }

 private:
  void compare() noexcept {
    gain = count * (above_ - here_);
    loss = freq > 1 ? count * (here_ - below_) : ~0ULL;
  }
  std::uint64_t below_ = 0, here_ = 0, above_ = 0;  // logarithms of freq - 1, freq, freq + 1
};

Share& most_gained(std::span<Share> shares) noexcept { return *std::ranges::max_element(shares, {}, &Share::gain); }
Share& least_lost(std::span<Share> shares) noexcept { return *std::ranges::min_element(shares, {}, &Share::loss); }

class BitWriter {
 public:
  void put(std::uint32_t value, unsigned bits) {
    for (unsigned b = 0; b < bits; ++b, ++count_) {
      if (count_ % 8 == 0) bytes_.push_back(std::byte{0});
      bytes_.back() |= static_cast<std::byte>((value >> b & 1) << count_ % 8);
    }
  }
  [[nodiscard]] std::vector<std::byte> take() noexcept { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
  std::size_t count_ = 0;
};

class BitReader {
 public:
  explicit BitReader(ByteReader& in) : in_(in) {}
  std::uint32_t take(unsigned bits) {
    std::uint32_t value = 0;
    for (unsigned b = 0; b < bits; ++b, ++count_) {
      if (count_ % 8 == 0) byte_ = in_.le<std::uint8_t>("frequency table");
      value |= (byte_ >> count_ % 8 & 1U) << b;
    }
    return value;
  }

 private:
  ByteReader& in_;
  std::size_t count_ = 0;
  std::uint32_t byte_ = 0;
};

/// Width the first symbol's width is compared with.
unsigned first_width(unsigned bits, unsigned symbols) noexcept {
  const unsigned spread = static_cast<unsigned>(std::bit_width(symbols - 1));
  return bits > spread ? bits - spread : 0;
}
}  // namespace

std::uint64_t log2_q32(std::uint32_t value) noexcept {
  const unsigned whole = static_cast<unsigned>(std::bit_width(value)) - 1;
  std::uint64_t mantissa = std::uint64_t{value} << (31 - whole), result = whole;  // [1, 2) with 31 fractional bits
  for (int bit = 0; bit < 32; ++bit) {
    mantissa = mantissa * mantissa >> 31;
    const std::uint64_t carry = mantissa >> 32;
    mantissa >>= carry;
    result = result << 1 | carry;
  }
  return result;
}

RansModel fit_model(const CodeCounts& counts, unsigned bits) noexcept {
  const std::uint32_t whole = 1U << bits;
  std::uint64_t total = 0;
  for (const std::uint64_t count : counts) total += count;
  std::array<Share, 256> all;
  std::size_t used = 0;
  std::uint32_t sum = 0;
  for (const std::uint64_t count : counts)
    if (count > 0) {
      Share& share = all[used++];
      share.count = count;
      share.set(std::max(1U, static_cast<std::uint32_t>((count << bits) / total)));
      sum += share.freq;
    }
  // The cost is a sum of convex functions of the frequencies, so single steps and exchanges reach the optimum.
  const std::span<Share> shares(all.data(), used);
  for (; sum < whole; ++sum) most_gained(shares).one_more();
  for (; sum > whole; --sum) least_lost(shares).one_fewer();
  for (std::size_t exchange = 0; exchange < 4 * shares.size(); ++exchange) {
    Share &more = most_gained(shares), &fewer = least_lost(shares);
    if (&more == &fewer || more.gain <= fewer.loss) break;
    more.one_more();
    fewer.one_fewer();
  }
  RansModel model{.bits = bits, .symbols = 0, .freq = {}};
  for (std::size_t s = 0, next = 0; s < counts.size(); ++s)
    if (counts[s] > 0) {
      model.freq[s] = static_cast<std::uint16_t>(shares[next++].freq);
      model.symbols = static_cast<unsigned>(s) + 1;
    }
  return model;
}

std::uint64_t coded_bits(const CodeCounts& counts, const RansModel& model) noexcept {
  unsigned __int128 cost = 0;
  for (std::size_t s = 0; s < counts.size(); ++s)
    if (counts[s] > 0)
      cost += static_cast<unsigned __int128>(counts[s]) * (model.bits * kOne - log2_q32(model.freq[s]));
  return static_cast<std::uint64_t>((cost + kOne - 1) >> 32);
}

std::uint64_t rounding_bits(const CodeCounts& counts, const RansModel& model) noexcept {
  std::uint64_t total = 0, mixed = 1ULL << 2 * model.bits;
  for (const std::uint64_t count : counts) total += count;
  for (const std::uint64_t f : model.freq) mixed -= f * f;
  return total * mixed / (184ULL << 32);
}

RansModel choose_model(const CodeCounts& counts) {
  const auto used = static_cast<std::uint64_t>(std::ranges::count_if(counts, [](std::uint64_t c) { return c > 0; }));
  std::array<RansModel, kRansMaxBits + 1> model;
  std::array<std::uint64_t, kRansMaxBits + 1> price;
  price.fill(~0ULL);
  for (unsigned bits = kRansMinBits; bits <= kRansMaxBits; ++bits) {
    if (used > 1ULL << bits) continue;
    model[bits] = fit_model(counts, bits);
    price[bits] =
        coded_bits(counts, model[bits]) + rounding_bits(counts, model[bits]) + 8 * write_model(model[bits]).size();
  }
  const auto least = [&](unsigned last) { return *std::min_element(price.begin(), price.begin() + last + 1); };
  const std::uint64_t best = least(kRansMaxBits), quick = least(kRansQuickBits);
  const bool is_few = model[kRansMaxBits].symbols <= kRansFewSymbols;
  const bool is_quick = quick <= best + best / (is_few ? 8192 : 4096);
  const std::uint64_t aim = is_quick ? quick : best, near = aim / (is_quick || is_few ? 65536 : 4096);
  unsigned bits = kRansMinBits;
  while (price[bits] > aim + near) ++bits;
  return model[bits];
}

std::vector<std::byte> write_model(const RansModel& model) {
  BitWriter out;
  unsigned before = first_width(model.bits, model.symbols);
  for (unsigned s = 0; s < model.symbols; ++s) {
    const std::uint32_t f = model.freq[s];
    const auto width = static_cast<unsigned>(std::bit_width(f));
    const unsigned step = width > before ? 2 * (width - before) - 1 : 2 * (before - width);
    for (unsigned k = 0; k < step; ++k) out.put(1, 1);
    out.put(0, 1);
    if (width > 1) out.put(f & ((1U << (width - 1)) - 1), width - 1);
    before = width;
  }
  return out.take();
}

RansModel read_model(ByteReader& in, unsigned bits, unsigned symbols) {
  RansModel model{.bits = bits, .symbols = symbols, .freq = {}};
  BitReader from(in);
  unsigned before = first_width(bits, symbols);
  for (unsigned s = 0; s < symbols; ++s) {
    unsigned step = 0;
    while (from.take(1) != 0)
      if (++step > 2 * kRansMaxBits) in.refuse("frequency table: a width steps by more than there are widths");
    const int width =
        static_cast<int>(before) + (step % 2 ? static_cast<int>(step + 1) / 2 : -static_cast<int>(step / 2));
    if (width < 0 || width > static_cast<int>(bits)) in.refuse("frequency table: a frequency exceeds the sum");
    before = static_cast<unsigned>(width);
    if (width > 0) model.freq[s] = static_cast<std::uint16_t>(1U << (width - 1) | from.take(before - 1));
  }
  if (!is_valid(model)) in.refuse("frequency table: the frequencies do not sum to 2^" + std::to_string(bits));
  return model;
}

}  // namespace lmq
