#include "deflate_codes.hpp"

#include <algorithm>
#include <array>
#include <numeric>

namespace lmq {
namespace {

constexpr std::size_t kLiterals = 286, kDistances = 30, kEnd = 256;
constexpr unsigned kLongestWord = 15, kLongestLengthWord = 7;
constexpr std::size_t kMaxPlain = 65535;

/// Symbols that stand for a range of values: the first value and how many bits choose within the range.
struct Ranges {
  std::vector<std::uint16_t> first;
  std::vector<std::uint8_t> extra;
  [[nodiscard]] std::size_t of(unsigned value) const {
    return static_cast<std::size_t>(std::upper_bound(first.begin(), first.end(), value) - first.begin()) - 1;
  }
};

/// RFC 1951, 3.2.5: `each` symbols per number of extra bits after `plain` ones with none.
Ranges ranges(unsigned from, std::size_t count, std::size_t plain, std::size_t each) {
  Ranges out;
  unsigned value = from;
  for (std::size_t i = 0; i < count; ++i) {
    const auto extra = static_cast<std::uint8_t>(i < plain ? 0 : (i - plain) / each + 1);
    out.first.push_back(static_cast<std::uint16_t>(value));
    out.extra.push_back(extra);
    value += 1U << extra;
  }
  return out;
}

const Ranges& length_ranges() {
  static const Ranges table = [] {
    Ranges out = ranges(3, 28, 8, 4);
    out.first.push_back(258), out.extra.push_back(0);
    return out;
  }();
  return table;
}

const Ranges& distance_ranges() {
  static const Ranges table = ranges(1, kDistances, 4, 2);
  return table;
}

/// Words of a canonical code, their bits reversed as the stream wants them.
struct Words {
  explicit Words(std::span<const std::uint8_t> lengths) : length(lengths.begin(), lengths.end()), word(lengths.size()) {
    std::uint32_t next = 0;
    for (unsigned bits = 1; bits <= kLongestWord; ++bits, next <<= 1)
      for (std::size_t s = 0; s < length.size(); ++s)
        if (length[s] == bits) word[s] = reversed(next++, bits);
  }
  static std::uint16_t reversed(std::uint32_t value, unsigned bits) {
    std::uint32_t out = 0;
    for (unsigned b = 0; b < bits; ++b) out |= (value >> b & 1) << (bits - 1 - b);
    return static_cast<std::uint16_t>(out);
  }
  std::vector<std::uint8_t> length;
  std::vector<std::uint16_t> word;
};

struct Counts {
  std::array<std::uint64_t, kLiterals> literals{};
  std::array<std::uint64_t, kDistances> distances{};
  std::uint64_t extra_bits = 0;
};

Counts count(std::span<const Token> tokens) {
  Counts counts;
  counts.literals[kEnd] = 1;
  for (const Token& token : tokens) {
    if (token.length == 0) {
      ++counts.literals[token.value];
      continue;
    }
    const std::size_t l = length_ranges().of(token.length), d = distance_ranges().of(token.value);
    ++counts.literals[kEnd + 1 + l];
    ++counts.distances[d];
    counts.extra_bits += length_ranges().extra[l] + distance_ranges().extra[d];
  }
  return counts;
}

std::uint64_t price(const Counts& counts, std::span<const std::uint8_t> literals,
                    std::span<const std::uint8_t> distances) {
  std::uint64_t bits = counts.extra_bits;
  for (std::size_t s = 0; s < kLiterals; ++s) bits += counts.literals[s] * literals[s];
  for (std::size_t s = 0; s < kDistances; ++s) bits += counts.distances[s] * distances[s];
  return bits;
}

/// RFC 1951, 3.2.6.
std::vector<std::uint8_t> fixed_literals() {
  std::vector<std::uint8_t> lengths(288, 8);
  std::fill(lengths.begin() + 144, lengths.begin() + 256, 9);
  std::fill(lengths.begin() + 256, lengths.begin() + 280, 7);
  return lengths;
}

/// A code's lengths as symbols 0..18 with their extra bits (RFC 1951, 3.2.7).
struct LengthSymbol {
  std::uint8_t symbol, extra, extra_bits;
};
std::vector<LengthSymbol> in_runs(std::span<const std::uint8_t> lengths) {
  std::vector<LengthSymbol> out;
  for (std::size_t i = 0; i < lengths.size();) {
    std::size_t run = 1;
    while (i + run < lengths.size() && lengths[i + run] == lengths[i]) ++run;
    const std::uint8_t length = lengths[i];
    i += run;
    if (length != 0) out.push_back({length, 0, 0}), --run;
    while (run >= 3) {
      const std::size_t part = std::min<std::size_t>(run, length != 0 ? 6 : 138);
      if (length != 0)
        out.push_back({16, static_cast<std::uint8_t>(part - 3), 2});
      else if (part <= 10)
        out.push_back({17, static_cast<std::uint8_t>(part - 3), 3});
      else
        out.push_back({18, static_cast<std::uint8_t>(part - 11), 7});
      run -= part;
    }
    for (; run > 0; --run) out.push_back({length, 0, 0});
  }
  return out;
}

/// The head of a block with words of its own.
struct OwnWords {
  std::vector<std::uint8_t> literals, distances, lengths;
  std::vector<LengthSymbol> symbols;
  std::size_t literal_count = 0, distance_count = 0, length_count = 0;
  std::uint64_t bits = 0;

  explicit OwnWords(const Counts& counts)
      : literals(word_lengths(counts.literals, kLongestWord)), distances(word_lengths(counts.distances, kLongestWord)) {
    literal_count = std::max<std::size_t>(257, used(literals));
    distance_count = std::max<std::size_t>(1, used(distances));
    std::vector<std::uint8_t> all(literals.begin(), literals.begin() + static_cast<std::ptrdiff_t>(literal_count));
    all.insert(all.end(), distances.begin(), distances.begin() + static_cast<std::ptrdiff_t>(distance_count));
    symbols = in_runs(all);
    std::array<std::uint64_t, 19> often{};
    for (const LengthSymbol& symbol : symbols) ++often[symbol.symbol];
    if (std::ranges::count(often, 0U) == 18) ++often[often[0] > 0 ? 1 : 0];  // readers want this code complete
    lengths = word_lengths(often, kLongestLengthWord);
    length_count = 19;
    while (length_count > 4 && lengths[kOrder[length_count - 1]] == 0) --length_count;
    bits = 14 + 3 * length_count;
    for (const LengthSymbol& symbol : symbols) bits += lengths[symbol.symbol] + symbol.extra_bits;
  }

  static std::size_t used(const std::vector<std::uint8_t>& lengths) {
    std::size_t count = lengths.size();
    while (count > 0 && lengths[count - 1] == 0) --count;
    return count;
  }

  void write(DeflateWriter& out) const {
    out.bits(static_cast<std::uint32_t>(literal_count - 257), 5);
    out.bits(static_cast<std::uint32_t>(distance_count - 1), 5);
    out.bits(static_cast<std::uint32_t>(length_count - 4), 4);
    for (std::size_t i = 0; i < length_count; ++i) out.bits(lengths[kOrder[i]], 3);
    const Words words(lengths);
    for (const LengthSymbol& symbol : symbols) {
      out.bits(words.word[symbol.symbol], words.length[symbol.symbol]);
      out.bits(symbol.extra, symbol.extra_bits);
    }
  }

  static constexpr std::array<std::uint8_t, 19> kOrder{16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                                       11, 4,  12, 3, 13, 2, 14, 1, 15};
};

void write_tokens(DeflateWriter& out, std::span<const Token> tokens, const Words& literals, const Words& distances) {
  const auto put = [&](const Words& words, std::size_t symbol) { out.bits(words.word[symbol], words.length[symbol]); };
  for (const Token& token : tokens) {
    if (token.length == 0) {
      put(literals, token.value);
      continue;
    }
    const std::size_t l = length_ranges().of(token.length), d = distance_ranges().of(token.value);
    put(literals, kEnd + 1 + l);
    out.bits(token.length - length_ranges().first[l], length_ranges().extra[l]);
    put(distances, d);
    out.bits(static_cast<std::uint32_t>(token.value - distance_ranges().first[d]), distance_ranges().extra[d]);
  }
  put(literals, kEnd);
}

}  // namespace

std::vector<std::uint8_t> word_lengths(std::span<const std::uint64_t> counts, unsigned longest) {
  std::vector<std::uint8_t> lengths(counts.size(), 0);
  struct Coin {
    std::uint64_t weight;
    std::vector<std::uint16_t> symbols;
  };
  std::vector<Coin> leaves;
  for (std::size_t s = counts.size(); s-- > 0;)  // the later of two equal counts first: it gets no shorter word
    if (counts[s] > 0) leaves.push_back({counts[s], {static_cast<std::uint16_t>(s)}});
  if (leaves.size() == 1) lengths[leaves[0].symbols[0]] = 1;
  if (leaves.size() < 2) return lengths;
  const auto lighter = [](const Coin& a, const Coin& b) { return a.weight < b.weight; };
  std::ranges::stable_sort(leaves, lighter);
  std::vector<Coin> level = leaves;
  for (unsigned bits = 1; bits < longest; ++bits) {
    std::vector<Coin> packages, merged;
    for (std::size_t i = 0; i + 1 < level.size(); i += 2) {
      Coin package{level[i].weight + level[i + 1].weight, level[i].symbols};
      package.symbols.insert(package.symbols.end(), level[i + 1].symbols.begin(), level[i + 1].symbols.end());
      packages.push_back(std::move(package));
    }
    std::merge(leaves.begin(), leaves.end(), packages.begin(), packages.end(), std::back_inserter(merged), lighter);
    level = std::move(merged);
  }
  for (std::size_t i = 0; i < 2 * leaves.size() - 2; ++i)
    for (const std::uint16_t symbol : level[i].symbols) ++lengths[symbol];
  return lengths;
}

void DeflateWriter::bits(std::uint32_t value, unsigned count) {
  held_ |= std::uint64_t{value} << held_bits_;
  for (held_bits_ += count; held_bits_ >= 8; held_bits_ -= 8, held_ >>= 8)
    out_.push_back(static_cast<std::byte>(held_));
}

void DeflateWriter::align() {
  if (held_bits_ > 0) bits(0, 8 - held_bits_);
}

void DeflateWriter::plain(std::span<const std::byte> bytes, bool last) {
  do {
    const auto part = bytes.first(std::min(kMaxPlain, bytes.size()));
    bytes = bytes.subspan(part.size());
    bits(last && bytes.empty() ? 1 : 0, 3);
    align();
    bits(static_cast<std::uint32_t>(part.size()), 16), bits(static_cast<std::uint32_t>(~part.size() & 0xFFFF), 16);
    out_.insert(out_.end(), part.begin(), part.end());
  } while (!bytes.empty());
}

void DeflateWriter::block(std::span<const Token> tokens, std::span<const std::byte> bytes, bool last) {
  const Counts counts = count(tokens);
  const OwnWords own(counts);
  const std::vector<std::uint8_t> fixed = fixed_literals(), fixed_distances(kDistances, 5);
  const std::uint64_t own_bits = own.bits + price(counts, own.literals, own.distances),
                      fixed_bits = price(counts, fixed, fixed_distances),
                      plain_bits = 8 * bytes.size() + 40 * (bytes.size() / kMaxPlain + 1);
  if (plain_bits <= std::min(own_bits, fixed_bits)) return plain(bytes, last);
  bits(last ? 1 : 0, 1);
  if (fixed_bits <= own_bits) {
    bits(1, 2);
    return write_tokens(*this, tokens, Words(fixed), Words(fixed_distances));
  }
  bits(2, 2);
  own.write(*this);
  write_tokens(*this, tokens, Words(own.literals), Words(own.distances));
}

std::vector<std::byte> DeflateWriter::take() { return std::move(out_); }

}  // namespace lmq
