#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>

#include "lmq/base/digest.hpp"
#include "lmq/base/error.hpp"
#include "lmq/codec/model.hpp"
#include "lmq/codec/record.hpp"
#include "lmq/kernels/pack.hpp"
#include "units.hpp"

using namespace lmq;

// Blocks of rANS codes, byte by byte as docs/format.md (section 2.4) has them.
namespace {
using Bytes = std::vector<std::byte>;

RansModel model_of(const QuantizedUnit& unit) {
  CodeCounts counts{};
  count_codes(unit.codes, counts);
  return choose_model(counts);
}

/// Where the first block begins, in a record of one block whose codebook is a table of floats.
std::size_t block_at(const QuantizedUnit& unit) {
  return 40 + 4 * unit.levels + write_model(model_of(unit)).size() + 4;
}

template <class T>
T take(std::span<const std::byte>& from) {
  T value;
  REQUIRE(from.size() >= sizeof value);
  std::memcpy(&value, from.data(), sizeof value);
  from = from.subspan(sizeof value);
  return value;
}

struct Block {
  std::size_t tail = 0;
  std::vector<std::uint32_t> states;
  std::vector<std::uint16_t> words;
};

Block taken_apart(std::span<const std::byte> bytes, std::size_t codes) {
  Block block;
  block.tail = take<std::uint16_t>(bytes);
  block.states.resize(codes >= 1u << 17 ? 64 : codes >= 1u << 14 ? 16 : 4);
  std::size_t bit = 0;
  const auto next_bits = [&](unsigned count) {
    std::uint32_t value = 0;
    for (unsigned b = 0; b < count; ++b, ++bit)
      value |= (std::to_integer<unsigned>(bytes[bit / 8]) >> bit % 8 & 1) << b;
    return value;
  };
  for (std::uint32_t& state : block.states) {
    const unsigned below = next_bits(4);
    state = (1U << below | next_bits(below)) << 16;
  }
  if (bit % 8 != 0) REQUIRE(next_bits(static_cast<unsigned>(8 - bit % 8)) == 0);
  bytes = bytes.subspan(bit / 8);
  for (std::uint32_t& state : block.states) state |= take<std::uint16_t>(bytes);
  while (!bytes.empty()) block.words.push_back(take<std::uint16_t>(bytes));
  return block;
}

/// Codes of lanes by the loop of the document; the words it used are taken away.
void decode_lanes(const RansModel& model, std::vector<std::uint32_t>& x, std::vector<std::uint16_t>& words,
                  std::span<Code> codes) {
  std::size_t next = 0;
  for (std::size_t i = 0; i < codes.size(); ++i) {
    std::uint32_t& state = x[i % x.size()];
    const std::uint32_t slot = state % (1U << model.bits);
    std::uint32_t begin = 0;
    unsigned s = 0;
    while (slot >= begin + model.freq[s]) begin += model.freq[s++];
    state = model.freq[s] * (state >> model.bits) + slot - begin;
    if (state < 1U << 16) {
      REQUIRE(next < words.size());
      state = state << 16 | words[next++];
    }
    codes[i] = static_cast<Code>(s);
  }
  words.erase(words.begin(), words.begin() + static_cast<std::ptrdiff_t>(next));
}

void seal(Bytes& record) {
  const std::uint64_t checksum = digest64(std::span(record).first(record.size() - 8));
  std::memcpy(record.data() + record.size() - 8, &checksum, 8);
}

bool is_refused(Bytes record, const QuantizedUnit& unit) {
  seal(record);
  std::vector<float> values(unit.count);
  try {
    decode_record_values(record, values, "changed");
  } catch (const Error& error) {
    return error.code == Errc::malformed;
  }
  return false;
}
}  // namespace

TEST_CASE("rans block: a plain decoder after the document restores codes and tail", "[record][rans][twin]") {
  const std::size_t count = GENERATE(1u, 5u, 64u, 3000u, 16384u, 131071u, 131072u, 200'001u, 1u << 19);
  const unsigned levels = GENERATE(2u, 5u, 16u, 200u), dice = GENERATE(1u, 40u);
  CAPTURE(count, levels, dice);
  const QuantizedUnit unit = bell_unit(count, levels, dice);
  const EncodedRecord record = encode_record(unit, CoderChoice::rans);
  if (read_record_header(record.bytes, "one code").code_bits == 0) return;
  const auto bytes = std::span(record.bytes).subspan(block_at(unit));
  Block block = taken_apart(bytes.first(bytes.size() - 8), count);
  REQUIRE(block.tail <= std::min<std::size_t>(count, 4096));
  std::vector<Code> codes(count);
  const RansModel model = model_of(unit);
  decode_lanes(model, block.states, block.words, std::span(codes).first(count - block.tail));
  REQUIRE(block.words.empty());
  std::vector<std::uint16_t> low;
  for (const std::uint32_t state : block.states) {
    REQUIRE(state >> 16 == 1);
    low.push_back(static_cast<std::uint16_t>(state));
  }
  std::vector<std::uint32_t> lane{low[0] | std::uint32_t{low[1]} << 16};
  low.erase(low.begin(), low.begin() + 2);
  const std::size_t room = low.size();
  decode_lanes(model, lane, low, std::span(codes).last(block.tail));
  REQUIRE(lane[0] == 1U << 16);
  REQUIRE(codes == unit.codes);
  if (block.tail == std::min<std::size_t>(count, 4096)) {
    REQUIRE(std::ranges::all_of(low, [](std::uint16_t word) { return word == 0; }));
  } else {
    REQUIRE(room > 0);
    REQUIRE(low.empty());  // the code before found no room
  }
}

TEST_CASE("rans block: 5 bits a lane, a few bytes and the rounding of states are all it costs beside its codes",
          "[record][rans]") {
  const std::size_t count = GENERATE(100u, 4096u, 16384u, 131072u, 1u << 19);
  const unsigned levels = GENERATE(2u, 3u, 8u, 16u, 64u, 200u), dice = GENERATE(2u, 12u, 40u);
  CAPTURE(count, levels, dice);
  const QuantizedUnit unit = bell_unit(count, levels, dice);
  const EncodedRecord record = encode_record(unit, CoderChoice::rans);
  CodeCounts counts{};
  count_codes(unit.codes, counts);
  const double price = double(coded_bits(counts, model_of(unit)) + rounding_bits(counts, model_of(unit)));
  if (price / double(count) < 0.02 || price < 512) return;  // the tail cannot fill what is free
  const double lanes = double(rans_lanes(count)), bits = 8.0 * double(record.bytes.size() - 8 - block_at(unit));
  // 16 for the tail's number, 16 for its start, up to 15 of its state and 15 of its room unused, half a byte of bits
  CAPTURE(bits - price);
  REQUIRE(bits - price <= 5 * lanes + 64 + 4 * std::sqrt(lanes));
}

TEST_CASE("rans block: bits and numbers that break a rule are refused", "[record][rans][hostile]") {
  const QuantizedUnit unit = bell_unit(3, 16, 6), large = bell_unit(20'000, 2, 1);
  const Bytes record = encode_record(unit, CoderChoice::rans).bytes;
  const std::size_t at = block_at(unit);
  REQUIRE(record.size() == at + 2 + 2 + 8 + 8);  // all codes in the tail: states are 2^16 and what lies in them
  REQUIRE(!is_refused(record, unit));
  const auto changed = [](Bytes bytes, std::size_t place, int value) {
    bytes[place] = static_cast<std::byte>(value);
    return bytes;
  };
  for (const int tail : {0, 1, 2, 4, 5, 255}) REQUIRE(is_refused(changed(record, at, tail), unit));
  REQUIRE(is_refused(changed(record, at + 1, 1), unit));
  for (std::size_t lane = 0; lane < 4; ++lane)  // wider states, for which bytes are missing
    for (const int width : {1, 8, 15})
      REQUIRE(is_refused(changed(record, at + 2 + lane / 2, width << 4 * (lane % 2)), unit));
  for (std::size_t byte = 4; byte < 12; ++byte)  // the tail's state, and words that nothing reads
    REQUIRE(is_refused(changed(record, at + byte, std::to_integer<int>(record[at + byte]) ^ 16), unit));

  const Bytes lanes16 = encode_record(large, CoderChoice::rans).bytes;
  const std::size_t begin = block_at(large);
  std::size_t bit = 0;
  for (int lane = 0; lane < 16; ++lane) {
    unsigned below = 0;
    for (unsigned b = 0; b < 4; ++b, ++bit)
      below |= (std::to_integer<unsigned>(lanes16[begin + 2 + bit / 8]) >> bit % 8 & 1) << b;
    bit += below;
  }
  REQUIRE(!is_refused(lanes16, large));
  for (; bit % 8 != 0; ++bit)  // bits left over
    REQUIRE(is_refused(
        changed(lanes16, begin + 2 + bit / 8, std::to_integer<int>(lanes16[begin + 2 + bit / 8]) ^ 1 << bit % 8),
        large));
  REQUIRE(is_refused(changed(lanes16, begin + 1, 0x10), large));  // more than 4096
}
