#include "lmq/kernels/widen.hpp"

#include <array>
#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "lmq/kernels/isa.hpp"
#include "lmq/kernels/keys.hpp"

using lmq::DType;

namespace {
constexpr std::array kSmall{DType::bf16,    DType::f16,         DType::f8_e4m3,
                            DType::f8_e5m2, DType::f8_e4m3fnuz, DType::f8_e5m2fnuz};

std::size_t pattern_count(DType type) { return std::size_t{1} << lmq::bits(type); }

/// Every pattern of the type once.
std::vector<std::byte> all_patterns(DType type) {
  const std::size_t count = pattern_count(type), size = lmq::bits(type) / 8;
  std::vector<std::byte> bytes(count * size);
  for (std::size_t p = 0; p < count; ++p) std::memcpy(bytes.data() + p * size, &p, size);
  return bytes;
}

std::vector<std::uint32_t> bits_of(const std::vector<float>& floats) {
  std::vector<std::uint32_t> patterns(floats.size());
  if (!floats.empty()) std::memcpy(patterns.data(), floats.data(), floats.size() * 4);
  return patterns;
}

std::vector<std::byte> narrowed(DType type, const std::vector<float>& floats) {
  std::vector<std::byte> bytes(floats.size() * lmq::bits(type) / 8);
  lmq::narrow_to(type, floats, bytes);
  return bytes;
}

std::uint16_t narrowed_one(DType type, float value) {
  std::uint16_t pattern = 0;
  const auto bytes = narrowed(type, {value});
  std::memcpy(&pattern, bytes.data(), bytes.size());
  return pattern;
}

/// Floats near every rounding decision of every small type: values, their middles, one step beside them, random
/// patterns.
std::vector<float> hard_floats(DType type) {
  std::vector<float> floats{0.0f,
                            -0.0f,
                            std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity(),
                            std::numeric_limits<float>::quiet_NaN(),
                            std::bit_cast<float>(0x7F800001u),
                            std::bit_cast<float>(0xFFBFFFFFu),
                            std::numeric_limits<float>::max(),
                            std::numeric_limits<float>::denorm_min(),
                            -std::numeric_limits<float>::min()};
  std::vector<float> values(pattern_count(type));
  lmq::reference::widen(type, all_patterns(type), values);
  for (std::size_t p = 0; p + 1 < values.size(); ++p) {
    const float middle = static_cast<float>((double{values[p]} + double{values[p + 1]}) / 2);
    for (const float value : {values[p], middle})
      for (const float beside : {value, std::nextafter(value, 1e38f), std::nextafter(value, -1e38f)})
        floats.push_back(beside);
  }
  std::mt19937 random(7);
  for (int i = 0; i < 100000; ++i) floats.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(random())));
  return floats;
}
}  // namespace

TEST_CASE("every 8- and 16-bit pattern widens as the reference says") {
  for (const DType type : kSmall) {
    const auto bytes = all_patterns(type);
    std::vector<float> fast(pattern_count(type)), plain(pattern_count(type));
    lmq::widen(type, bytes, fast);
    lmq::reference::widen(type, bytes, plain);
    INFO(lmq::name(type));
    REQUIRE((bits_of(fast) == bits_of(plain)));
  }
}

TEST_CASE("known values of the small float types") {
  const auto value = [](DType type, unsigned pattern) {
    return lmq::widen_pattern(type, static_cast<std::uint16_t>(pattern));
  };
  CHECK(value(DType::f16, 0x3C00) == 1.0f);
  CHECK(value(DType::f16, 0x0001) == 0x1p-24f);
  CHECK(value(DType::f16, 0x7BFF) == 65504.0f);
  CHECK(value(DType::f16, 0xFC00) == -std::numeric_limits<float>::infinity());
  CHECK(value(DType::bf16, 0x3F80) == 1.0f);
  CHECK(value(DType::bf16, 0x0001) == 0x1p-133f);
  CHECK(value(DType::f8_e4m3, 0x7E) == 448.0f);
  CHECK(value(DType::f8_e4m3, 0x01) == 0x1p-9f);
  CHECK(std::isnan(value(DType::f8_e4m3, 0x7F)));
  CHECK(std::isnan(value(DType::f8_e4m3, 0xFF)));
  CHECK(value(DType::f8_e5m2, 0x7B) == 57344.0f);
  CHECK(value(DType::f8_e5m2, 0xFC) == -std::numeric_limits<float>::infinity());
  CHECK(std::isnan(value(DType::f8_e5m2, 0x7D)));
  CHECK(value(DType::f8_e4m3fnuz, 0x7F) == 240.0f);
  CHECK(value(DType::f8_e4m3fnuz, 0x40) == 1.0f);
  CHECK(std::isnan(value(DType::f8_e4m3fnuz, 0x80)));
  CHECK(value(DType::f8_e5m2fnuz, 0x7F) == 57344.0f);
  CHECK(value(DType::f8_e5m2fnuz, 0x40) == 1.0f);
  CHECK(std::isnan(value(DType::f8_e5m2fnuz, 0x80)));
}

TEST_CASE("widening then narrowing gives the pattern back") {
  for (const DType type : kSmall) {
    std::vector<float> values(pattern_count(type));
    const auto bytes = all_patterns(type);
    lmq::widen(type, bytes, values);
    const auto back = narrowed(type, values);
    const std::size_t size = lmq::bits(type) / 8;
    for (std::size_t p = 0; p < values.size(); ++p) {
      if (std::isnan(values[p])) {
        CHECK(std::isnan(lmq::widen_pattern(type, narrowed_one(type, values[p]))));
      } else if (std::memcmp(back.data() + p * size, bytes.data() + p * size, size) != 0) {
        FAIL(lmq::name(type) << " pattern " << p);
      }
    }
  }
}

TEST_CASE("narrowing rounds to nearest even, by brute force over all values") {
  for (const DType type : kSmall) {
    std::vector<std::pair<double, std::uint16_t>> values;  // non-negative finite values in order
    for (std::size_t p = 0; p < pattern_count(type) / 2; ++p)
      if (const float value = lmq::widen_pattern(type, static_cast<std::uint16_t>(p)); std::isfinite(value))
        values.emplace_back(value, static_cast<std::uint16_t>(p));
    std::mt19937 random(11);
    for (int trial = 0; trial < 20000; ++trial) {
      const std::size_t at = random() % (values.size() - 1);
      const auto [low, low_pattern] = values[at];
      const auto [high, high_pattern] = values[at + 1];
      const float inside = trial % 3 == 0 ? static_cast<float>((low + high) / 2)
                                          : static_cast<float>(low + (high - low) * (random() % 1001) / 1000.0);
      const double to_low = inside - low, to_high = high - inside;
      const std::uint16_t wanted = to_low < to_high       ? low_pattern
                                   : to_high < to_low     ? high_pattern
                                   : low_pattern % 2 == 0 ? low_pattern
                                                          : high_pattern;
      if (narrowed_one(type, inside) != wanted) FAIL(lmq::name(type) << " " << inside);
    }
  }
}

TEST_CASE("out of range becomes infinity, or the largest value where there is none") {
  const float huge = 3e38f, infinity = std::numeric_limits<float>::infinity();
  for (const float value : {huge, infinity}) {
    CHECK(narrowed_one(DType::f16, value) == 0x7C00);
    CHECK(narrowed_one(DType::f16, -value) == 0xFC00);
    CHECK(narrowed_one(DType::f8_e4m3, value) == 0x7E);
    CHECK(narrowed_one(DType::f8_e4m3, -value) == 0xFE);
    CHECK(narrowed_one(DType::f8_e5m2, value) == 0x7C);
    CHECK(narrowed_one(DType::f8_e4m3fnuz, value) == 0x7F);
    CHECK(narrowed_one(DType::f8_e5m2fnuz, -value) == 0xFF);
  }
  CHECK(narrowed_one(DType::bf16, std::numeric_limits<float>::max()) == 0x7F80);
  CHECK(narrowed_one(DType::f16, 65519.0f) == 0x7BFF);
  CHECK(narrowed_one(DType::f16, 65520.0f) == 0x7C00);
  CHECK(narrowed_one(DType::f8_e4m3fnuz, -0.0f) == 0);
  CHECK(narrowed_one(DType::f8_e4m3fnuz, -1e-9f) == 0);
  CHECK(narrowed_one(DType::f8_e4m3, -1e-9f) == 0x80);
}

TEST_CASE("narrowing gives the reference's bits on hard values") {
  for (const DType type : kSmall) {
    const auto floats = hard_floats(type);
    std::vector<std::byte> plain(floats.size() * lmq::bits(type) / 8);
    lmq::reference::narrow_to(type, floats, plain);
    INFO(lmq::name(type));
    REQUIRE((narrowed(type, floats) == plain));
  }
}

TEST_CASE("F64 rounds to nearest even and F32 passes") {
  const std::vector<double> wide{1.0, 1.0 + 0x1p-24, 1.0 + 0x1.8p-23, 1e300, -1e-300, 0x1p-149};
  std::vector<float> floats(wide.size());
  lmq::widen(DType::f64, std::as_bytes(std::span(wide)), floats);
  CHECK(floats ==
        std::vector<float>{1.0f, 1.0f, 1.0f + 0x1p-22f, std::numeric_limits<float>::infinity(), -0.0f, 0x1p-149f});
  std::vector<double> back(wide.size());
  lmq::narrow_to(DType::f64, floats, std::as_writable_bytes(std::span(back)));
  CHECK(back[2] == double{floats[2]});
  std::vector<float> same(floats.size());
  lmq::widen(DType::f32, std::as_bytes(std::span(floats)), same);
  CHECK(bits_of(same) == bits_of(floats));
}

TEST_CASE("every length and address widens alike") {
  std::mt19937 random(3);
  for (const DType type : {DType::bf16, DType::f16, DType::f8_e4m3, DType::f32, DType::f64}) {
    const std::size_t size = lmq::bits(type) / 8;
    for (const std::size_t length : {0, 1, 2, 15, 16, 17, 63, 64, 65, 4099})
      for (const std::size_t shift : {0, 1, 3}) {
        std::vector<std::byte> bytes(length * size + shift);
        for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
        const auto window = std::span(bytes).subspan(shift);
        std::vector<float> fast(length), plain(length);
        lmq::widen(type, window, fast);
        lmq::reference::widen(type, window, plain);
        REQUIRE((bits_of(fast) == bits_of(plain)));
        CHECK(lmq::find_nonfinite(type, window) == lmq::reference::find_nonfinite(type, window));
      }
  }
}

TEST_CASE("the first NaN or infinity is found wherever it is") {
  for (const DType type : {DType::bf16, DType::f16, DType::f32, DType::f64, DType::f8_e4m3, DType::f8_e5m2,
                           DType::f8_e4m3fnuz, DType::f8_e5m2fnuz}) {
    const std::size_t count = 9001;
    const std::vector<float> ones(count, 1.0f);
    std::vector<std::byte> clean(count * lmq::bits(type) / 8);
    lmq::narrow_to(type, ones, clean);
    CHECK_FALSE(lmq::find_nonfinite(type, clean));
    CHECK_FALSE(lmq::find_nonfinite(type, {}));
    const std::size_t size = lmq::bits(type) / 8;
    std::vector<std::byte> nan(size);
    const float bad = std::numeric_limits<float>::quiet_NaN();
    lmq::narrow_to(type, std::span(&bad, 1), nan);
    for (const std::size_t at :
         {std::size_t{0}, std::size_t{1}, std::size_t{63}, std::size_t{4095}, std::size_t{4096}, count - 1}) {
      auto bytes = clean;
      std::memcpy(bytes.data() + at * size, nan.data(), size);
      std::memcpy(bytes.data() + (count - 1) * size, nan.data(), size);
      CHECK(lmq::find_nonfinite(type, bytes) == at);
    }
  }
  const double beyond = std::bit_cast<double>(0x47EFFFFFF0000000ull),
               inside = std::bit_cast<double>(0x47EFFFFFEFFFFFFFull);
  CHECK(lmq::find_nonfinite(DType::f64, std::as_bytes(std::span(&beyond, 1))) == 0);
  CHECK_FALSE(lmq::find_nonfinite(DType::f64, std::as_bytes(std::span(&inside, 1))));
}

TEST_CASE("keys keep the order of floats") {
  const std::vector<float> ascending{-3e38f, -1.5f,     -1.0f,     -0x1p-126f, -0x1p-149f,
                                     0.0f,   0x1p-149f, 0x1p-126f, 1.0f,       3e38f};
  for (std::size_t i = 0; i + 1 < ascending.size(); ++i)
    CHECK(lmq::float_key(ascending[i]) < lmq::float_key(ascending[i + 1]));
  CHECK(lmq::float_key(-0.0f) == lmq::float_key(0.0f));
  for (const float value : ascending) CHECK(lmq::key_float(lmq::float_key(value)) == value);
  CHECK(std::bit_cast<std::uint32_t>(lmq::key_float(0x7FFFFFFFu)) == 0u);
  for (unsigned p = 0; p < 0x10000; ++p)
    if (lmq::pattern_of_key16(lmq::signed_key16(static_cast<std::uint16_t>(p))) != p) FAIL(p);
}

TEST_CASE("the instruction set has a name") { CHECK_FALSE(lmq::isa_name().empty()); }
