#include "lmq/codec/trellis_record.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>

#include "exact.hpp"
#include "lmq/base/digest.hpp"
#include "lmq/base/error.hpp"
#include "lmq/kernels/trellis.hpp"
#include "test_data.hpp"
#include "units.hpp"

using namespace lmq;

namespace {
using Bytes = std::vector<std::byte>;

/// A unit whose steps, classes and codes are still to come.
TrellisUnit bare_trellis_unit(unsigned states, std::uint64_t rows, std::uint64_t cols, std::uint64_t lane_rows) {
  TrellisUnit unit;
  unit.method = 30;
  unit.source = DType::bf16;
  unit.states = states;
  unit.rows = rows, unit.cols = cols, unit.lane_rows = lane_rows;
  return unit;
}

/// Bell-shaped codes of about the spread of their class; classes around `spread`, a few codes far outside.
/// More than 5 parameters: what units of these tests differ in.
TrellisUnit sample_unit(unsigned states, std::uint64_t rows, std::uint64_t cols, std::uint64_t lane_rows, int spread,
                        std::uint64_t seed, unsigned outliers = 64) {
  Random random{seed};
  TrellisUnit unit = bare_trellis_unit(states, rows, cols, lane_rows);
  unit.step = 0.0123F;
  const auto around = [&](int middle, int reach) {
    return middle - reach + static_cast<int>(random.below(2 * static_cast<std::uint64_t>(reach) + 1));
  };
  for (std::uint64_t i = 0; i < rows; ++i) {
    unit.row_step.push_back(static_cast<std::int16_t>(around(-3, 9)));
    unit.row_spread.push_back(static_cast<std::int8_t>(around(spread, 3)));
  }
  for (std::uint64_t j = 0; j < cols; ++j) {
    unit.col_step.push_back(static_cast<std::int16_t>(around(5, 4)));
    unit.col_spread.push_back(static_cast<std::int8_t>(around(0, 2)));
  }
  for (std::uint64_t i = 0; i < rows * cols; ++i) {
    const int c = std::clamp(unit.row_spread[i / cols] + unit.col_spread[i % cols], 0, 60);
    const double width = std::exp2((c - 12) / 3.0);
    double sum = 0;
    for (int k = 0; k < 6; ++k) sum += static_cast<double>(random.below(1000)) / 1000 - 0.5;
    double code = sum * width;
    if (outliers > 0 && random.below(outliers) == 0) code *= static_cast<double>(random.below(4000));
    unit.codes.push_back(static_cast<std::int32_t>(std::clamp(code, -1.0 * kMaxTrellisCode, 1.0 * kMaxTrellisCode)));
  }
  return unit;
}

bool same(const TrellisUnit& a, const TrellisUnit& b) {
  return a.method == b.method && a.source == b.source && a.states == b.states && a.rows == b.rows && a.cols == b.cols &&
         a.lane_rows == b.lane_rows && a.step == b.step && a.row_step == b.row_step && a.col_step == b.col_step &&
         a.row_spread == b.row_spread && a.col_spread == b.col_spread && a.codes == b.codes;
}

/// What the codes mean, weight by weight: the definition.
std::vector<float> meaning(const TrellisUnit& unit) {
  std::vector<float> values(unit.codes.size());
  for (std::uint64_t lane = 0; lane < unit.lanes(); ++lane) {
    unsigned state = 0;
    const std::uint64_t begin = lane * unit.lane_rows, end = std::min(begin + unit.lane_rows, unit.rows);
    for (std::uint64_t d = unit.lane_rows + unit.cols - 1; d-- > 0;)
      for (std::uint64_t row = end; row-- > begin;) {
        if (row - begin > d || d - (row - begin) >= unit.cols) continue;
        const std::uint64_t col = d - (row - begin), at = row * unit.cols + col;
        const auto spread = static_cast<unsigned>(std::clamp(unit.row_spread[row] + unit.col_spread[col], 0, 60));
        const std::int32_t v = trellis_value(unit.states, state & 1, spread, unit.codes[at]);
        const float factor = unit.step * octave_eighths(unit.row_step[row]);
        values[at] = static_cast<float>(v) * factor * octave_eighths(unit.col_step[col]);
        if (unit.states > 1) state = trellis_next(trellis_taps(unit.states), state, unit.codes[at]);
      }
  }
  return values;
}

void seal(Bytes& record) {
  const std::uint64_t checksum = digest64(std::span(record).first(record.size() - 8));
  std::memcpy(record.data() + record.size() - 8, &checksum, 8);
}

/// True when both decoders read it; anything but that or Errc::malformed by both fails the test.
bool is_read(std::span<const std::byte> from, std::size_t count) {
  const Exact record(from);
  const auto attempt = [&](auto body) {
    try {
      body();
      return true;
    } catch (const Error& error) {
      REQUIRE(error.code == Errc::malformed);
      REQUIRE(std::string(error.what()).starts_with("hostile"));
      return false;
    }
  };
  std::uint64_t claimed = 0;
  const bool header = attempt([&] { claimed = read_record_header(record.view(), "hostile").count; });
  std::vector<float> room(count);
  const bool values = attempt([&] { decode_record_values(record.view(), room, "hostile"); });
  if (!header) REQUIRE(!values);
  if (header && claimed == count && is_trellis_record(record.view())) {
    TrellisUnit unit;
    REQUIRE(attempt([&] { unit = decode_trellis_record(record.view(), "hostile"); }) == values);
    if (values) REQUIRE(room == meaning(unit));
  }
  return values;
}

std::vector<TrellisUnit> samples() {
  return {sample_unit(8, 13, 21, 13, 16, 1), sample_unit(1, 9, 40, 3, 14, 2),  sample_unit(32, 37, 11, 5, 30, 3),
          sample_unit(4, 40, 9, 2, 6, 4),    sample_unit(16, 1, 60, 1, 50, 5), sample_unit(8, 30, 1, 2, 12, 6)};
}
}  // namespace

TEST_CASE("trellis record: decoding gives the unit and the values its codes mean", "[trellis]") {
  const unsigned states = GENERATE(1u, 4u, 8u, 16u, 32u);
  const int spread = GENERATE(-4, 5, 12, 18, 24, 29, 58);
  for (const std::uint64_t rows : {1u, 2u, 15u, 16u, 33u, 130u})
    for (const std::uint64_t cols : {1u, 2u, 17u, 50u})
      for (const std::uint64_t lane_rows : {std::uint64_t{1}, ceil_div(rows, 16), ceil_div(rows, 5), rows}) {
        if (ceil_div(rows, lane_rows) > kMaxTrellisLanes) continue;
        const TrellisUnit unit = sample_unit(states, rows, cols, lane_rows, spread, rows * cols + states);
        CAPTURE(states, spread, rows, cols, lane_rows);
        const EncodedRecord record = encode_trellis_record(unit);
        REQUIRE(record.ledger.total() == record.bytes.size());
        REQUIRE(is_trellis_record(record.bytes));
        REQUIRE(same(decode_trellis_record(record.bytes, "x"), unit));
        std::vector<float> values(rows * cols);
        decode_record_values(record.bytes, values, "x");
        REQUIRE(values == meaning(unit));
      }
}

TEST_CASE("trellis record: long lanes and many of them decode to what they mean", "[trellis]") {
  for (const std::uint64_t lane_rows : {10u, 20u, 32u, 160u}) {
    const TrellisUnit unit = sample_unit(8, 630, 300, lane_rows, 17, lane_rows, 2000);
    const EncodedRecord record = encode_trellis_record(unit);
    std::vector<float> values(unit.codes.size());
    decode_record_values(record.bytes, values, "x");
    REQUIRE(values == meaning(unit));
  }
}

TEST_CASE("trellis record: no weights", "[trellis]") {
  TrellisUnit unit;
  unit.cols = 5;
  unit.col_step.assign(5, 1), unit.col_spread.assign(5, 1);
  const EncodedRecord record = encode_trellis_record(unit);
  REQUIRE(record.bytes.size() < 32);
  REQUIRE(read_record_header(record.bytes, "x").count == 0);
  std::vector<float> none;
  decode_record_values(record.bytes, none, "x");
  REQUIRE(decode_trellis_record(record.bytes, "x").cols == 5);
}

TEST_CASE("trellis record: units that contradict themselves are refused", "[trellis]") {
  const TrellisUnit good = sample_unit(8, 4, 6, 2, 12, 1);
  const auto refused = [&](auto change) {
    TrellisUnit unit = good;
    change(unit);
    REQUIRE_THROWS_AS(encode_trellis_record(unit), Error);
  };
  refused([](TrellisUnit& u) { u.states = 2; });
  refused([](TrellisUnit& u) { u.codes.pop_back(); });
  refused([](TrellisUnit& u) { u.lane_rows = 0; });
  refused([](TrellisUnit& u) { u.row_step.pop_back(); });
  refused([](TrellisUnit& u) { u.col_spread.push_back(0); });
  refused([](TrellisUnit& u) { u.row_step[0] = 801; });
  refused([](TrellisUnit& u) { u.codes[3] = kMaxTrellisCode + 1; });
  refused([](TrellisUnit& u) { u.step = 0; });
  refused([](TrellisUnit& u) { u.step = std::nanf(""); });
}

TEST_CASE("trellis record: every truncation and every flipped bit is refused", "[trellis][hostile]") {
  for (const TrellisUnit& unit : samples()) {
    Bytes record = encode_trellis_record(unit).bytes;
    const std::size_t count = unit.codes.size();
    REQUIRE(is_read(record, count));
    for (std::size_t size = 0; size < record.size(); ++size) REQUIRE(!is_read(std::span(record).first(size), count));
    for (std::size_t bit = 0; bit < 8 * record.size(); ++bit) {
      record[bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
      REQUIRE(!is_read(record, count));
      record[bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
    }
  }
}

TEST_CASE("trellis record: truncated, longer or changed with a right checksum it is refused or read, never worse",
          "[trellis][hostile]") {
  for (const TrellisUnit& unit : samples()) {
    const Bytes record = encode_trellis_record(unit).bytes;
    const std::size_t count = unit.codes.size();
    for (std::size_t size = 8; size < record.size(); ++size) {
      Bytes cut(record.begin(), record.begin() + static_cast<std::ptrdiff_t>(size));
      seal(cut);
      REQUIRE(!is_read(cut, count));
    }
    for (const std::size_t more : {1u, 2u}) {
      Bytes longer = record;
      longer.insert(longer.end(), more, std::byte{0});
      seal(longer);
      REQUIRE(!is_read(longer, count));
    }
    for (std::size_t at = 0; at + 8 < record.size(); ++at)
      for (const int value : {0x00, 0x01, 0x02, 0x10, 0x7F, 0x80, 0xFF}) {
        Bytes changed = record;
        changed[at] = static_cast<std::byte>(value);
        seal(changed);
        (void)is_read(changed, count);
      }
  }
}

TEST_CASE("trellis record: random changes with a right checksum are read or refused", "[trellis][hostile]") {
  Random random{5};
  auto all = samples();
  all.push_back(sample_unit(8, 64, 64, 4, 17, 9, 300));
  for (const TrellisUnit& unit : all) {
    const Bytes record = encode_trellis_record(unit).bytes;
    for (int trial = 0; trial < 400; ++trial) {
      Bytes changed = record;
      for (std::uint64_t k = random.below(6) + 1; k > 0; --k)
        changed[random.below(trial % 2 ? changed.size() : std::min<std::size_t>(changed.size(), 60))] =
            static_cast<std::byte>(random());
      seal(changed);
      (void)is_read(changed, unit.codes.size());
    }
  }
}

TEST_CASE("trellis record: fields that no record can hold are refused before anything is allocated",
          "[trellis][hostile]") {
  const auto record_of = [](std::initializer_list<int> numbers) {
    Bytes record;
    for (const char c : {'L', 'M', 'Q', 'R', '\4', '\10', '\1', '\0', '\0'})
      record.push_back(static_cast<std::byte>(c));
    for (const int n : numbers) record.push_back(static_cast<std::byte>(n));
    record.resize(record.size() + 30);
    seal(record);
    return record;
  };
  const auto most = {0xFF, 0xFF, 0xFF, 0xFF, 0x7F};
  Bytes large = record_of({0xFF, 0xFF, 0xFF, 0xFF, 0x7F, 1, 1});
  REQUIRE(!is_read(large, 16));
  REQUIRE(!is_read(record_of(most), 16));
  REQUIRE(!is_read(record_of({0, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F, 1}), 16));
  REQUIRE(!is_read(record_of({0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1}), 16));
  REQUIRE(!is_read(record_of({100, 1, 1}), 100));  // 100 lanes
  REQUIRE(!is_read(record_of({4, 4, 0}), 16));
  REQUIRE(!is_read(record_of({4, 4, 5}), 16));
}

TEST_CASE("trellis record: small matrices pay little beside their codes", "[trellis]") {
  TrellisUnit unit = sample_unit(8, 64, 64, 64, 17, 3, 0);
  std::ranges::fill(unit.row_step, std::int16_t{0});
  std::ranges::fill(unit.col_step, std::int16_t{0});
  std::ranges::fill(unit.col_spread, std::int8_t{0});
  std::ranges::fill(unit.row_spread, std::int8_t{17});
  const EncodedRecord record = encode_trellis_record(unit);
  REQUIRE(record.ledger.header + record.ledger.tables <= 36);
  REQUIRE(record.ledger.codebooks <= 80);  // four constant arrays, and tables where they pay
  REQUIRE(8.0 * double(record.ledger.codes + record.ledger.codebooks) <= record.entropy_bits * 1.01 + 300);
}

namespace {
/// Units stated by rules, whose records were written once and stay.
std::vector<std::pair<const char*, TrellisUnit>> golden_units() {
  const auto rule = [](unsigned states, std::uint64_t rows, std::uint64_t cols, std::uint64_t lane_rows) {
    TrellisUnit unit = bare_trellis_unit(states, rows, cols, lane_rows);
    unit.step = 0.25F;
    for (std::uint64_t i = 0; i < rows; ++i) {
      unit.row_step.push_back(static_cast<std::int16_t>(i % 5) - 2);
      unit.row_spread.push_back(static_cast<std::int8_t>(12 + i % 3));
    }
    for (std::uint64_t j = 0; j < cols; ++j) {
      unit.col_step.push_back(static_cast<std::int16_t>(j * j % 7));
      unit.col_spread.push_back(static_cast<std::int8_t>(j % 2));
    }
    for (std::uint64_t i = 0; i < rows * cols; ++i)
      unit.codes.push_back(std::min(std::countr_zero(i + 1), 6) * (i % 3 == 0 ? -1 : 1));
    return unit;
  };
  TrellisUnit high = rule(8, 20, 30, 20);
  for (std::int8_t& spread : high.row_spread) spread = static_cast<std::int8_t>(spread + 18);
  for (std::size_t i = 0; i < high.codes.size(); ++i) high.codes[i] = static_cast<std::int32_t>(i * 37 % 201) - 100;
  high.codes[77] = 500'000;
  return {{"trellis8", rule(8, 40, 33, 3)}, {"trellis1", rule(1, 16, 16, 16)}, {"trellis8_raw", high}};
}
std::filesystem::path golden_path(const char* name) { return test_data() / "golden" / (std::string(name) + ".lmqr"); }
}  // namespace

TEST_CASE("golden: trellis records decode to the stated unit, and are still the same bytes", "[golden][trellis]") {
  for (const auto& [name, unit] : golden_units()) {
    CAPTURE(name);
    std::ifstream file(golden_path(name), std::ios::binary);
    REQUIRE(file);
    const std::vector<char> chars{std::istreambuf_iterator<char>(file), {}};
    const auto stored = std::as_bytes(std::span(chars));
    REQUIRE(same(decode_trellis_record(stored, name), unit));
    const Bytes now = encode_trellis_record(unit).bytes;
    REQUIRE(std::ranges::equal(now, stored));
  }
}

TEST_CASE("golden: write the trellis files that are missing (only for a new record version)", "[.write-golden]") {
  for (const auto& [name, unit] : golden_units()) {
    if (std::filesystem::exists(golden_path(name))) continue;
    const Bytes bytes = encode_trellis_record(unit).bytes;
    std::ofstream(golden_path(name), std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  }
}
