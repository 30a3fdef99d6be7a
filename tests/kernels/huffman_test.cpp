#include "lmq/kernels/huffman.hpp"

#include <catch2/catch.hpp>
#include <random>
#include <vector>

using namespace lmq;

namespace {
HuffmanModel model_of(const std::vector<std::uint64_t>& counts, unsigned most = kHuffmanMaxBits) {
  HuffmanModel model;
  model.symbols = static_cast<unsigned>(counts.size());
  huffman_lengths(counts, most, model.length);
  model.bits = *std::ranges::max_element(model.length);
  return model;
}

struct Streams {
  std::vector<std::vector<std::byte>> bytes;
  [[nodiscard]] HuffmanCursor cursor() const {
    HuffmanCursor at;
    at.streams = bytes.size();
    for (std::size_t s = 0; s < bytes.size(); ++s) at.bytes[s] = bytes[s];
    return at;
  }
};

Streams encode(const HuffmanModel& model, const std::vector<std::uint8_t>& symbols, std::size_t streams) {
  HuffmanEncodeTable table;
  make_huffman_encode_table(model, table);
  Streams coded;
  for (std::size_t s = 0; s < streams; ++s) {
    std::vector<std::byte> room((symbols.size() / streams + 1) * kHuffmanMaxBits / 8 + 1 + kHuffmanSlack);
    room.resize(huffman_encode(table, symbols, s, streams, room));
    coded.bytes.emplace_back(room.begin(), room.end());  // of exactly its size
    coded.bytes.back().shrink_to_fit();
  }
  return coded;
}
}  // namespace

TEST_CASE("Huffman streams: what was coded comes back, portion by portion, and every bit is used") {
  std::mt19937_64 random(4);
  for (const std::size_t symbols : {2, 3, 37, 256})
    for (const std::size_t streams : {1, 8})
      for (const std::size_t count : {0, 1, 7, 8, 31, 32, 33, 1000, 4099}) {
        std::vector<std::uint8_t> codes(count);
        std::vector<std::uint64_t> counts(symbols, 1);
        for (auto& code : codes) {
          code = static_cast<std::uint8_t>(std::min<std::uint64_t>(random() % symbols, random() % symbols));
          ++counts[code];
        }
        CAPTURE(symbols, streams, count);
        const HuffmanModel model = model_of(counts);
        REQUIRE(is_valid(model));
        const Streams coded = encode(model, codes, streams);
        std::uint64_t bits = 0, bytes = 0;
        for (const auto code : codes) bits += model.length[code];
        for (const auto& stream : coded.bytes) bytes += stream.size();
        REQUIRE(8 * bytes >= bits);
        REQUIRE(8 * bytes < bits + 8 * streams);
        HuffmanDecodeTable table;
        make_huffman_decode_table(model, table);
        for (const std::size_t portion : {std::size_t{8}, std::size_t{64}, count + 8}) {
          HuffmanCursor cursor = coded.cursor();
          std::vector<std::uint8_t> back(count);
          for (std::size_t done = 0; done < count; done += portion)
            REQUIRE(huffman_decode(table, cursor, std::span(back).subspan(done, std::min(portion, count - done))));
          REQUIRE(back == codes);
          REQUIRE(huffman_finished(cursor));
        }
      }
}

TEST_CASE("Huffman words are canonical, and models that break a rule are told") {
  HuffmanModel model{.bits = 3, .symbols = 4, .length = {2, 1, 3, 3}};
  REQUIRE(is_valid(model));
  HuffmanEncodeTable table;
  make_huffman_encode_table(model, table);
  REQUIRE(table.word[1] == 0b0);
  REQUIRE(table.word[0] == 0b01);   // 10, first bit lowest
  REQUIRE(table.word[2] == 0b011);  // 110
  REQUIRE(table.word[3] == 0b111);
  for (const auto& broken :
       {HuffmanModel{.bits = 3, .symbols = 4, .length = {2, 1, 3, 0}},
        HuffmanModel{.bits = 3, .symbols = 4, .length = {1, 1, 3, 3}},
        HuffmanModel{.bits = 4, .symbols = 4, .length = {2, 1, 3, 3}},
        HuffmanModel{.bits = 2, .symbols = 4, .length = {2, 1, 3, 3}},
        HuffmanModel{.bits = 0, .symbols = 0, .length = {}}, HuffmanModel{.bits = 13, .symbols = 2, .length = {1, 13}}})
    REQUIRE_FALSE(is_valid(broken));
}

TEST_CASE("Huffman streams that end early, late or in ones are told") {
  const HuffmanModel model{.bits = 3, .symbols = 4, .length = {2, 1, 3, 3}};
  HuffmanDecodeTable table;
  make_huffman_decode_table(model, table);
  std::vector<std::uint8_t> codes(1003);
  std::mt19937 random(2);
  for (auto& code : codes) code = static_cast<std::uint8_t>(random() % 4);
  const auto reads = [&](const Streams& coded) {
    HuffmanCursor cursor = coded.cursor();
    std::vector<std::uint8_t> back(codes.size());
    return huffman_decode(table, cursor, back) && huffman_finished(cursor) && back == codes;
  };
  Streams good = encode(model, codes, 8);
  REQUIRE(reads(good));
  for (std::size_t s = 0; s < 8; ++s) {
    Streams bad = good;
    bad.bytes[s].pop_back();
    REQUIRE_FALSE(reads(bad));
    bad = good;
    bad.bytes[s].push_back(std::byte{0});
    REQUIRE_FALSE(reads(bad));
    bad = good;
    bad.bytes[s].clear();
    REQUIRE_FALSE(reads(bad));
    std::uint64_t bits = 0;
    for (std::size_t i = s; i < codes.size(); i += 8) bits += model.length[codes[i]];
    if (bits % 8 == 0) continue;
    bad = good;
    bad.bytes[s].back() |= std::byte{0x80};
    REQUIRE_FALSE(reads(bad));
  }
}
