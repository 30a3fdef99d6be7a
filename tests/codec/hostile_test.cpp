#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "exact.hpp"
#include "lmq/base/digest.hpp"
#include "lmq/base/error.hpp"
#include "lmq/codec/record.hpp"
#include "units.hpp"

using namespace lmq;

namespace {
using Bytes = std::vector<std::byte>;

enum class Verdict { read, refused };

/// Decodes in every way; anything but success or Errc::malformed fails the test. Both decoders must agree.
Verdict verdict(std::span<const std::byte> from, std::size_t count) {
  const Exact record(from);
  const auto attempt = [&](auto body) {
    try {
      body();
      return Verdict::read;
    } catch (const Error& error) {
      REQUIRE(error.code == Errc::malformed);
      REQUIRE(std::string(error.what()).starts_with("hostile"));
      REQUIRE(std::string(error.what()).find('\n') == std::string::npos);
      return Verdict::refused;
    }
  };
  std::uint64_t claimed = 0;
  const Verdict header = attempt([&] { claimed = read_record_header(record.view(), "hostile").count; });
  const Verdict values = attempt([&] {
    std::vector<float> room(count);
    decode_record_values(record.view(), room, "hostile");
  });
  if (header == Verdict::refused) REQUIRE(values == Verdict::refused);
  if (header == Verdict::refused || claimed == count) {
    const Verdict pieces = attempt([&] {
      decode_record_pieces(record.view(), "hostile", [&](std::uint64_t begin, std::span<const float> part) {
        if (begin % kRecordPiece != 0 || begin + part.size() > count)
          std::abort();  // a piece that is not of the record
      });
    });
    REQUIRE(pieces == values);
  }
  if (header == Verdict::read && claimed <= 100'000) {  // more is allocated only where the caller wants it
    const Verdict unit = attempt([&] { (void)decode_record(record.view(), "hostile"); });
    if (claimed == count) REQUIRE(unit == values);
  }
  return values;
}

void seal(Bytes& record) {
  if (record.size() < 8) return;
  const std::uint64_t checksum = digest64(std::span(record).first(record.size() - 8));
  std::memcpy(record.data() + record.size() - 8, &checksum, 8);
}

/// One record of each kind.
std::vector<std::pair<std::size_t, Bytes>> samples() {
  std::vector<std::pair<std::size_t, Bytes>> records;
  const auto add = [&](const QuantizedUnit& unit, CoderChoice choice) {
    records.emplace_back(unit.count, encode_record(unit, choice).bytes);
  };
  add(bell_unit(600, 16, 6), CoderChoice::rans);
  add(bell_unit(500, 5, 1), CoderChoice::fixed);
  add(bell_unit(300, 1, 1), CoderChoice::cheapest);
  add(grouped_unit(6, 50, 16, 3, CodebookKind::grid, LevelType::f16), CoderChoice::rans);
  add(grouped_unit(6, 50, 16, 4, CodebookKind::table, LevelType::f32), CoderChoice::fixed);
  add(bell_unit(400, 200, 3), CoderChoice::rans);
  add(grouped_unit(6, 50, 16, 8, CodebookKind::bases, LevelType::f16), CoderChoice::planes);
  add(grouped_unit(6, 50, 16, 3, CodebookKind::centred, LevelType::f32), CoderChoice::rans);
  add(grouped_unit(6, 50, 0, 4, CodebookKind::rank1, LevelType::f16), CoderChoice::planes);
  add(bell_unit(0, 4, 3), CoderChoice::cheapest);
  add(bell_unit(600, 16, 6), CoderChoice::huffman);
  add(bell_unit(401, 29, 3), CoderChoice::huffman);
  return records;
}
}  // namespace

TEST_CASE("record: every truncation is refused", "[record][hostile]") {
  for (const auto& [count, record] : samples())
    for (std::size_t size = 0; size < record.size(); ++size)
      REQUIRE(verdict(std::span(record).first(size), count) == Verdict::refused);
}

TEST_CASE("record: every flipped bit is refused", "[record][hostile]") {
  for (auto [count, record] : samples())
    for (std::size_t bit = 0; bit < 8 * record.size(); ++bit) {
      record[bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
      REQUIRE(verdict(record, count) == Verdict::refused);
      record[bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
    }
}

TEST_CASE("record: longer than it says is refused", "[record][hostile]") {
  for (auto [count, record] : samples()) {
    record.push_back(std::byte{0});
    REQUIRE(verdict(record, count) == Verdict::refused);
    seal(record);
    REQUIRE(verdict(record, count) == Verdict::refused);
  }
}

TEST_CASE("record: truncations with a right checksum are refused", "[record][hostile]") {
  for (const auto& [count, record] : samples())
    for (std::size_t size = 8; size < record.size(); ++size) {
      Bytes cut(record.begin(), record.begin() + static_cast<std::ptrdiff_t>(size));
      seal(cut);
      REQUIRE(verdict(cut, count) == Verdict::refused);
    }
}

TEST_CASE("record: any byte changed to anything, with a right checksum, is read or refused", "[record][hostile]") {
  for (const auto& [count, record] : samples())
    for (std::size_t at = 0; at + 8 < record.size(); ++at)
      for (const int value : {0x00, 0x01, 0x02, 0x08, 0x0F, 0x10, 0x7F, 0x80, 0xFE, 0xFF}) {
        Bytes changed = record;
        changed[at] = static_cast<std::byte>(value);
        seal(changed);
        (void)verdict(changed, count);
      }
}

TEST_CASE("record: flipped bits in rans states or words, with a right checksum, are nearly always refused",
          "[record][hostile]") {
  const QuantizedUnit unit = bell_unit(3000, 16, 6);
  const EncodedRecord record = encode_record(unit, CoderChoice::rans);
  int read = 0, tried = 0;
  for (std::size_t at = record.bytes.size() - 8 - record.ledger.codes - 12; at + 8 < record.bytes.size();
       ++at, ++tried) {
    Bytes changed = record.bytes;
    changed[at] ^= std::byte{4};
    seal(changed);
    read += verdict(changed, unit.count) == Verdict::read;
  }
  REQUIRE(tried > 500);
  REQUIRE(read * 100 <= tried);  // a lane finds back where another code of the same frequency has the same place
}

TEST_CASE("record: many random changes with a right checksum are read or refused", "[record][hostile]") {
  Random random{99};
  auto all = samples();
  all.emplace_back(40'000, encode_record(bell_unit(40'000, 16, 6), CoderChoice::rans).bytes);
  all.emplace_back(40'000, encode_record(bell_unit(40'000, 16, 6), CoderChoice::huffman).bytes);
  for (const auto& [count, record] : all)
    for (int trial = 0; trial < 400; ++trial) {
      Bytes changed = record;
      for (std::uint64_t k = random.below(6) + 1; k > 0; --k)
        changed[random.below(trial % 2 ? changed.size() : std::min<std::size_t>(changed.size(), 120))] =
            static_cast<std::byte>(random());
      seal(changed);
      (void)verdict(changed, count);
    }
}

TEST_CASE("record: counts that no record can hold are refused before anything is allocated", "[record][hostile]") {
  const Bytes record = encode_record(bell_unit(600, 16, 6), CoderChoice::rans).bytes;
  const auto refused = [&](std::size_t field, std::uint64_t value) {
    Bytes changed = record;
    std::memcpy(changed.data() + field, &value, 8);
    seal(changed);
    return verdict(changed, 600) == Verdict::refused;
  };
  for (const std::uint64_t value : {~0ULL, 1ULL << 63, 1ULL << 40, 1ULL << 30, 1'000'000'000ULL, 0ULL}) {
    CAPTURE(value);
    REQUIRE(refused(16, value));  // weights
  }
  for (const std::uint64_t group : {1u, 3u, 599u}) REQUIRE(refused(32, group));  // more codebooks than there are
  REQUIRE(!refused(32, ~0ULL));                                                  // one per row, of one row
}

TEST_CASE("record: room of another size than the record's is refused", "[record]") {
  const Bytes record = encode_record(bell_unit(600, 16, 6), CoderChoice::rans).bytes;
  std::vector<float> room(599);
  REQUIRE_THROWS_AS(decode_record_values(record, room, "x"), Error);
}

TEST_CASE("record: bits left over behind fixed width and planes are 0, else it is refused", "[record][hostile]") {
  // 501 codes of 3 bits leave 1 bit, planes of 401 codes 7.
  for (const auto& [count, coder] : {std::pair(501, CoderChoice::fixed), std::pair(401, CoderChoice::planes)}) {
    const QuantizedUnit unit = bell_unit(static_cast<std::size_t>(count), 5, 1);
    Bytes record = encode_record(unit, coder).bytes;
    REQUIRE(verdict(record, unit.count) == Verdict::read);
    record[record.size() - 9] ^= std::byte{0x80};
    seal(record);
    REQUIRE(verdict(record, unit.count) == Verdict::refused);
  }
}

TEST_CASE("record: a codebook number that is not finite is refused", "[record][hostile]") {
  const float bad = GENERATE(std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                             -std::numeric_limits<float>::infinity());
  QuantizedUnit unit = bell_unit(500, 5, 1);
  unit.level_type = LevelType::f32;
  unit.book = {-2.0F, -1.0F, 0.5F, 1.0F, 2.0F};
  Bytes record = encode_record(unit, CoderChoice::fixed).bytes;
  REQUIRE(verdict(record, unit.count) == Verdict::read);
  std::array<std::byte, 4> level{};
  std::memcpy(level.data(), &unit.book[2], level.size());
  const auto at = std::ranges::search(record, level).begin();
  REQUIRE(at != record.end());
  std::memcpy(&*at, &bad, sizeof bad);
  seal(record);
  REQUIRE(verdict(record, unit.count) == Verdict::refused);
}

TEST_CASE("record: a number stored as -0 is read as +0", "[record]") {
  QuantizedUnit unit = bell_unit(500, 5, 1);
  unit.level_type = LevelType::f32;
  unit.book = {-2.0F, -1.0F, -0.0F, 1.0F, 2.0F};
  const Bytes record = encode_record(unit, CoderChoice::fixed).bytes;
  std::vector<float> values(unit.count);
  decode_record_values(record, values, "test");
  REQUIRE(std::ranges::count(values, 0.0F) > 0);
  for (const float value : values) REQUIRE((value != 0 || !std::signbit(value)));
  for (const float number : decode_record(record, "test").book) REQUIRE((number != 0 || !std::signbit(number)));
}
