#include "../../src/container/deflate.hpp"

#include <catch2/catch.hpp>
#include <random>
#include <string>

#include "../../src/container/deflate_codes.hpp"
#include "inflated.hpp"
#include "lmq/base/digest.hpp"
#include "lmq/base/error.hpp"

using namespace lmq;

namespace {

std::string random_text(std::size_t size, unsigned letters, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string text(size, '\0');
  for (char& c : text) c = static_cast<char>(random() % letters);
  return text;
}

/// Texts with what a coder may trip over: nothing, one byte, runs, far and long repeats, every byte, noise.
std::vector<std::string> samples() {
  const std::string far = random_text(40000, 256, 3);
  std::vector<std::string> texts = {"a",
                                    "ab",
                                    "aaa",
                                    std::string(257, 'x'),
                                    std::string(70000, '\0'),
                                    far + far,
                                    far.substr(0, 32768) + far.substr(0, 32768),
                                    random_text(200000, 256, 5),
                                    random_text(300000, 3, 6),
                                    random_text(5000, 30, 7)};
  std::string all, names;
  for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
  for (int i = 0; i < 3000; ++i) names += "\"model.layers." + std::to_string(i) + ".self_attn.q_proj.weight\",";
  texts.push_back(all), texts.push_back(names);
  for (std::size_t size = 2; size < 40; ++size) texts.push_back(random_text(size, 2, size));
  return texts;
}

}  // namespace

TEST_CASE("deflate: zlib gives back every text, and so does inflate", "[container][deflate]") {
  for (const std::string& text : samples()) {
    CAPTURE(text.size());
    const auto bytes = std::as_bytes(std::span(text));
    const auto stream = deflate(bytes);
    REQUIRE(stream.size() <= bytes.size() + 5 * (bytes.size() / 32768 + 1) + 11);
    REQUIRE(test::inflated(stream, text.size()) == text);
    const auto back = inflate(stream, text.size(), "test");
    REQUIRE(std::ranges::equal(back, bytes));
  }
}

TEST_CASE("deflate: as short as zlib's best within 4 %", "[container][deflate]") {
  for (const std::string& text : samples()) {
    if (text.size() < 1000) continue;
    uLongf length = compressBound(text.size());
    std::string best(length, '\0');
    REQUIRE(compress2(reinterpret_cast<Bytef*>(best.data()), &length, reinterpret_cast<const Bytef*>(text.data()),
                      text.size(), 9) == Z_OK);
    const auto stream = deflate(std::as_bytes(std::span(text)));
    CAPTURE(text.size(), length, stream.size());
    REQUIRE(static_cast<double>(stream.size()) <= 1.04 * static_cast<double>(length) + 20);
  }
}

TEST_CASE("deflate: the bytes are pinned, on every machine and with every zlib", "[container][deflate]") {
  std::vector<std::byte> all;
  for (const std::string& text : samples()) {
    const auto stream = deflate(std::as_bytes(std::span(text)));
    all.insert(all.end(), stream.begin(), stream.end());
  }
  REQUIRE(hex(digest64(all)) == "864641cea64783b2");
}

TEST_CASE("inflate: a cut, longer, flipped or mistold stream is malformed", "[container][deflate]") {
  const std::string text = random_text(3000, 20, 1);
  const auto stream = deflate(std::as_bytes(std::span(text)));
  const auto refuses = [&](std::span<const std::byte> bytes, std::uint64_t size) {
    try {
      (void)inflate(bytes, size, "test");
    } catch (const Error& error) {
      return error.code == Errc::malformed;
    }
    return false;
  };
  for (std::size_t size = 0; size < stream.size(); size += 7) REQUIRE(refuses(std::span(stream).first(size), 3000));
  for (const std::uint64_t size : {0UL, 2999UL, 3001UL, 1UL << 40, ~0UL}) REQUIRE(refuses(stream, size));
  auto longer = stream;
  longer.push_back(std::byte{0});
  REQUIRE(refuses(longer, 3000));
  for (std::size_t at = 2; at < stream.size(); at += 11) {
    auto flipped = stream;
    flipped[at] ^= std::byte{0x10};
    REQUIRE(refuses(flipped, 3000));
  }
}

TEST_CASE("word lengths fill the code space, keep the limit, and are those of fewest bits", "[container][deflate]") {
  // Fibonacci numbers want a code as deep as it has symbols.
  std::vector<std::uint64_t> counts{1, 1};
  while (counts.size() < 24) counts.push_back(counts[counts.size() - 1] + counts[counts.size() - 2]);
  for (const unsigned longest : {5U, 7U, 15U, 23U}) {
    const auto lengths = word_lengths(counts, longest);
    std::uint64_t filled = 0;
    for (const std::uint8_t length : lengths) {
      REQUIRE(length >= 1);
      REQUIRE(length <= longest);
      filled += std::uint64_t{1} << (longest - length);
    }
    REQUIRE(filled == std::uint64_t{1} << longest);
  }
  REQUIRE(word_lengths(std::vector<std::uint64_t>{0, 9, 0}, 15) == std::vector<std::uint8_t>{0, 1, 0});
  REQUIRE(word_lengths(std::vector<std::uint64_t>{0, 0}, 15) == std::vector<std::uint8_t>{0, 0});
  REQUIRE(word_lengths(std::vector<std::uint64_t>{1, 1, 2}, 15) == std::vector<std::uint8_t>{2, 2, 1});
}

TEST_CASE("unshuffle reverses shuffle", "[container][deflate]") {
  const std::string text = random_text(96, 256, 2);
  const auto bytes = std::as_bytes(std::span(text));
  for (const std::size_t width : {1U, 2U, 4U, 8U}) {
    const auto planes = shuffle(bytes, width);
    REQUIRE(std::ranges::equal(unshuffle(planes, width), bytes));
    REQUIRE(planes[1] == bytes[width]);
  }
}
