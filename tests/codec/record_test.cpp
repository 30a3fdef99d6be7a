#include "lmq/codec/record.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <catch2/catch.hpp>
#include <cmath>

#include "lmq/base/error.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/kernels/pack.hpp"
#include "units.hpp"

using namespace lmq;

namespace {
/// Every law of a record that holds for any unit and choice.
EncodedRecord round_trip(const QuantizedUnit& unit, CoderChoice choice) {
  EncodedRecord record = encode_record(unit, choice);
  REQUIRE(record.ledger.total() == record.bytes.size());
  const RecordHeader header = read_record_header(record.bytes, "test");
  REQUIRE(header.method == unit.method);
  REQUIRE(header.source == unit.source);
  REQUIRE(header.count == unit.count);
  REQUIRE(header.cols == unit.cols);
  REQUIRE(header.group == unit.group);
  REQUIRE(header.kind == unit.kind);
  REQUIRE(header.level_type == unit.level_type);
  REQUIRE(header.levels == unit.levels);
  REQUIRE(header.coder != CoderChoice::cheapest);
  if (choice != CoderChoice::cheapest) REQUIRE(header.coder == choice);
  REQUIRE(same(decode_record(record.bytes, "test"), unit));
  std::vector<float> values(unit.count, -7);
  decode_record_values(record.bytes, values, "test");
  REQUIRE(values == values_of(unit));
  std::vector<float> pieces(unit.count, -7);
  std::vector<std::uint8_t> times(unit.count, 0);  // pieces do not overlap, so threads do not meet here
  std::atomic<bool> whole = true;
  decode_record_pieces(record.bytes, "test", [&](std::uint64_t begin, std::span<const float> part) {
    if (begin % kRecordPiece != 0 || part.size() != std::min<std::uint64_t>(kRecordPiece, unit.count - begin))
      whole = false;
    for (std::size_t i = 0; i < part.size() && whole; ++i) pieces[begin + i] = part[i], ++times[begin + i];
  });
  REQUIRE(whole);
  REQUIRE(pieces == values);
  REQUIRE(std::ranges::count(times, 1) == static_cast<std::ptrdiff_t>(unit.count));
  return record;
}
}  // namespace

TEST_CASE("record: decoding restores the unit and its values, for every size, alphabet and coder", "[record]") {
  const std::size_t count = GENERATE(0u, 1u, 2u, 100u, 4096u, 16384u, 20001u);
  const unsigned levels = GENERATE(1u, 2u, 3u, 5u, 16u, 29u, 256u), dice = GENERATE(1u, 5u);
  CAPTURE(count, levels, dice);
  const QuantizedUnit unit = bell_unit(count, levels, dice);
  const auto cheapest = round_trip(unit, CoderChoice::cheapest);
  REQUIRE(cheapest.bytes.size() ==
          std::min({round_trip(unit, CoderChoice::fixed).bytes.size(), round_trip(unit, CoderChoice::rans).bytes.size(),
                    round_trip(unit, CoderChoice::huffman).bytes.size()}));
}

TEST_CASE("record: codebooks per group, tables and grids, floats and scaled halves", "[record]") {
  const auto kind = GENERATE(CodebookKind::table, CodebookKind::grid, CodebookKind::bases, CodebookKind::centred,
                             CodebookKind::rank1);
  const auto type = GENERATE(LevelType::f32, LevelType::f16);
  const unsigned levels = GENERATE(2u, 16u, 128u, 200u);
  const std::uint64_t cols = GENERATE(1u, 7u, 96u, 130u), group = GENERATE(0u, 1u, 32u, 128u, 500u);
  CAPTURE(int(kind), int(type), levels, cols, group);
  if (kind == CodebookKind::bases && levels == 200) return;  // no power of two
  const QuantizedUnit unit = grouped_unit(75, cols, group, levels, kind, type);
  round_trip(unit, CoderChoice::cheapest);
  const EncodedRecord planes = round_trip(unit, CoderChoice::planes);
  REQUIRE(planes.ledger.codes == (unit.count + 7) / 8 * std::bit_width(std::ranges::max(unit.codes)));
}

TEST_CASE("record: several blocks, the same bytes for any number of threads", "[record]") {
  const std::size_t count = GENERATE((1u << 19) - 1, 1u << 19, (1u << 20) + 12345);
  const unsigned levels = GENERATE(4u, 100u);
  const QuantizedUnit unit = bell_unit(count, levels, 6);
  for (const auto choice : {CoderChoice::fixed, CoderChoice::rans, CoderChoice::huffman, CoderChoice::planes}) {
    set_thread_count(1);
    const EncodedRecord one = round_trip(unit, choice);
    set_thread_count(3);
    const EncodedRecord three = round_trip(unit, choice);
    set_thread_count(0);
    REQUIRE(one.bytes == three.bytes);
  }
}

TEST_CASE("record: within 0.01 bit per weight of the entropy at a million weights, all stored bytes counted",
          "[record]") {
  const unsigned levels = GENERATE(2u, 3u, 4u, 8u, 16u, 17u, 64u, 256u), dice = GENERATE(2u, 12u);
  CAPTURE(levels, dice);
  const QuantizedUnit unit = bell_unit(1'000'000, levels, dice);
  const EncodedRecord record = encode_record(unit, CoderChoice::cheapest);
  const double bits = 8.0 * double(record.ledger.codes + record.ledger.tables);
  REQUIRE(bits <= record.entropy_bits + 0.01 * double(unit.count));
  if (levels == 16) REQUIRE(bits <= record.entropy_bits * 1.0015);
}

TEST_CASE("record: a small tensor pays little beside its codes", "[record]") {
  const unsigned levels = GENERATE(2u, 4u, 16u);
  const QuantizedUnit unit = bell_unit(4096, levels, 8);
  const EncodedRecord record = encode_record(unit, CoderChoice::cheapest);
  CAPTURE(levels, record.ledger.tables, record.ledger.codes, record.entropy_bits / 8);
  REQUIRE(record.ledger.header == 48);
  REQUIRE(double(record.ledger.tables + record.ledger.codes) <= record.entropy_bits / 8 + 48);
}

TEST_CASE("record: planes are taken for bases where they cost what fixed width does, and hold one sign each",
          "[record]") {
  QuantizedUnit unit = grouped_unit(8, 64, 32, 4, CodebookKind::bases, LevelType::f32);
  for (std::size_t i = 0; i < unit.codes.size(); ++i) unit.codes[i] = static_cast<Code>(i * 7 % 4);
  const EncodedRecord record = round_trip(unit, CoderChoice::cheapest);
  REQUIRE(read_record_header(record.bytes, "test").coder == CoderChoice::planes);
  REQUIRE(record.bytes.size() == round_trip(unit, CoderChoice::fixed).bytes.size());
  const std::size_t planes = record.bytes.size() - 8 - 2 * 64, weights = unit.codes.size();
  for (unsigned j = 0; j < 2; ++j)  // v_1's signs, then v_2's
    for (std::size_t i = 0; i < weights; ++i)
      REQUIRE((std::to_integer<unsigned>(record.bytes[planes + j * weights / 8 + i / 8]) >> i % 8 & 1) ==
              (unit.codes[i] >> (1 - j) & 1u));
  for (Code& code : unit.codes) code = static_cast<Code>(code == 0 ? 0 : 3);
  REQUIRE(round_trip(unit, CoderChoice::rans).bytes.size() > 0);
}

TEST_CASE("record: symbols by rANS never cost more than planes coded one by one would", "[record]") {
  for (const unsigned dice : {1u, 3u, 8u}) {
    const QuantizedUnit unit = bell_unit(1'000'000, 8, dice);
    double apart = 0;
    for (unsigned bit = 0; bit < 3; ++bit) {
      double ones = 0;
      for (const Code code : unit.codes) ones += code >> bit & 1;
      const double p = ones / double(unit.count);
      apart -= double(unit.count) * (p * std::log2(p) + (1 - p) * std::log2(1 - p));
    }
    const EncodedRecord record = encode_record(unit, CoderChoice::rans);
    REQUIRE(8.0 * double(record.ledger.codes + record.ledger.tables) <= apart * 1.001 + 4096);
  }
}

TEST_CASE("record: one used code costs nothing per weight", "[record]") {
  const auto choice = GENERATE(CoderChoice::cheapest, CoderChoice::fixed, CoderChoice::rans);
  QuantizedUnit unit = bell_unit(700'000, 16, 3);
  unit.codes.assign(unit.codes.size(), 9);
  const EncodedRecord record = round_trip(unit, choice);
  REQUIRE(record.bytes.size() == 48 + 4 * 16);
  REQUIRE(record.entropy_bits == 0);
}

TEST_CASE("record: fixed width needs as many bits as the largest code", "[record]") {
  QuantizedUnit unit = bell_unit(1000, 16, 1);
  for (Code& code : unit.codes) code %= 5;
  REQUIRE(round_trip(unit, CoderChoice::fixed).ledger.codes == 375);
}

TEST_CASE("record: memory that is used again changes nothing", "[record]") {
  EncodedRecord again;
  for (const std::size_t count : {200'000u, 10u, 0u, 70'000u})
    for (const auto choice : {CoderChoice::rans, CoderChoice::fixed}) {
      const QuantizedUnit unit = bell_unit(count, 16, 4, count + 3);
      encode_record(unit, choice, again);
      const EncodedRecord fresh = encode_record(unit, choice);
      REQUIRE(again.bytes == fresh.bytes);
      REQUIRE(again.ledger.total() == fresh.ledger.total());
      REQUIRE(again.entropy_bits == fresh.entropy_bits);
    }
}

TEST_CASE("record: a unit that contradicts itself is an internal error", "[record]") {
  const QuantizedUnit good = grouped_unit(10, 20, 8, 4, CodebookKind::table, LevelType::f16);
  const auto refused = [&](auto change) {
    QuantizedUnit unit = good;
    change(unit);
    try {
      (void)encode_record(unit, CoderChoice::cheapest);
      return false;
    } catch (const Error& error) {
      return error.code == Errc::internal;
    }
  };
  REQUIRE(refused([](QuantizedUnit& u) { u.count = 199; }));
  REQUIRE(refused([](QuantizedUnit& u) { u.cols = 19; }));
  REQUIRE(refused([](QuantizedUnit& u) { u.cols = 0; }));
  REQUIRE(refused([](QuantizedUnit& u) {
    u.group = 9;
    u.group = 5;
  }));
  REQUIRE(refused([](QuantizedUnit& u) { u.levels = 0; }));
  REQUIRE(refused([](QuantizedUnit& u) { u.levels = 257; }));
  REQUIRE(refused([](QuantizedUnit& u) { u.codes[17] = 4; }));
  REQUIRE(refused([](QuantizedUnit& u) { u.codes.pop_back(); }));
  REQUIRE(refused([](QuantizedUnit& u) { u.book.pop_back(); }));
  REQUIRE(refused([](QuantizedUnit& u) { u.book[3] = 0.1F; }));  // no scaled half
  REQUIRE(refused([](QuantizedUnit& u) { u.book[3] = INFINITY; }));
}
