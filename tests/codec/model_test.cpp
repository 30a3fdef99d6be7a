#include "lmq/codec/model.hpp"

#include <catch2/catch.hpp>
#include <cmath>

#include "lmq/kernels/pack.hpp"
#include "units.hpp"

using namespace lmq;

TEST_CASE("log2_q32 is log2 with 32 fractional bits", "[model]") {
  REQUIRE(log2_q32(1) == 0);
  REQUIRE(log2_q32(1024) == 10ULL << 32);
  std::uint64_t before = 0;
  double worst = 0;
  for (std::uint32_t value = 2; value <= 1U << kRansMaxBits; ++value) {
    const std::uint64_t log = log2_q32(value);
    REQUIRE(log > before);
    before = log;
    worst = std::max(worst, std::abs(static_cast<double>(log) * 0x1p-32 - std::log2(static_cast<double>(value))));
  }
  REQUIRE(worst < 1e-8);
}

TEST_CASE("fit_model: no other frequencies of three codes cost fewer bits", "[model]") {
  Random random{3};
  for (int trial = 0; trial < 40; ++trial) {
    CodeCounts counts{};
    counts[0] = 1 + random.below(trial % 2 ? 5 : 100000);
    counts[1] = 1 + random.below(100000);
    counts[4] = 1 + random.below(trial % 3 ? 3 : 1000);
    const auto cost = [&](std::uint32_t a, std::uint32_t b, std::uint32_t c) {
      return double(counts[0]) * (8 - std::log2(a)) + double(counts[1]) * (8 - std::log2(b)) +
             double(counts[4]) * (8 - std::log2(c));
    };
    double best = 1e300;
    for (std::uint32_t a = 1; a < 255; ++a)
      for (std::uint32_t b = 1; a + b < 256; ++b) best = std::min(best, cost(a, b, 256 - a - b));
    const RansModel model = fit_model(counts, 8);
    CAPTURE(counts[0], counts[1], counts[4]);
    REQUIRE(is_valid(model));
    REQUIRE(model.symbols == 5);
    REQUIRE(cost(model.freq[0], model.freq[1], model.freq[4]) <= best * (1 + 1e-9));
    REQUIRE(double(coded_bits(counts, model)) == Approx(best).margin(2));
  }
}

TEST_CASE("fit_model: every used code has a frequency, for the hardest counts", "[model]") {
  const unsigned bits = GENERATE(range(kRansMinBits, kRansMaxBits + 1));
  CodeCounts counts{};
  const int shape = GENERATE(0, 1, 2, 3);
  if (shape == 0) counts[0] = 1, counts[255] = 1;
  if (shape == 1) counts[9] = (1ULL << 30) - 300, counts[10] = 1;
  if (shape == 2) counts.fill(1), counts[0] = 1'000'000'000;
  if (shape == 3) counts.fill(1ULL << 22);
  const RansModel model = fit_model(counts, bits);
  CAPTURE(bits, shape);
  REQUIRE(is_valid(model));
  for (std::size_t s = 0; s < 256; ++s) REQUIRE((model.freq[s] > 0) == (counts[s] > 0));
}

TEST_CASE("choose_model: no other sum costs much less, and short tables are taken where they do not cost more",
          "[model]") {
  const unsigned levels = GENERATE(2u, 3u, 16u, 32u, 33u, 200u), dice = GENERATE(1u, 4u, 12u);
  const std::size_t count = GENERATE(1000u, 100'000u);
  CAPTURE(levels, dice, count);
  CodeCounts counts{};
  count_codes(bell_codes(count, levels, dice, 5), counts);
  const auto price = [&](const RansModel& model) {
    return double(coded_bits(counts, model) + rounding_bits(counts, model) + 8 * write_model(model).size());
  };
  const RansModel chosen = choose_model(counts);
  double best = 1e300, quick = 1e300;
  for (unsigned bits = kRansMinBits; bits <= kRansMaxBits; ++bits) {
    best = std::min(best, price(fit_model(counts, bits)));
    if (bits <= kRansQuickBits) quick = best;
  }
  const bool few = chosen.symbols <= kRansFewSymbols;
  const double quick_near = few ? 8192 : 4096;
  REQUIRE(price(chosen) <= best * (1 + 1 / quick_near) * (1 + 1.0 / 65536) + 1);
  REQUIRE((chosen.bits <= kRansQuickBits) == (std::floor(best + best / quick_near) >= quick));
  if (few || chosen.bits <= kRansQuickBits)
    REQUIRE(price(chosen) <= (chosen.bits <= kRansQuickBits ? quick : best) * (1 + 1.0 / 65536) + 1);
}

TEST_CASE("model: written and read back, in few bytes", "[model]") {
  const unsigned levels = GENERATE(2u, 3u, 16u, 100u, 256u), dice = GENERATE(1u, 2u, 12u);
  const std::size_t count = GENERATE(300u, 4096u, 100000u);
  CAPTURE(levels, dice, count);
  CodeCounts counts{};
  count_codes(bell_codes(count, levels, dice, 11), counts);
  const RansModel model = choose_model(counts);
  const auto bytes = write_model(model);
  ByteReader in(bytes, "model");
  const RansModel back = read_model(in, model.bits, model.symbols);
  REQUIRE(in.left() == 0);
  REQUIRE(back.freq == model.freq);
  REQUIRE(bytes.size() <= (levels * (count > 5000 ? 13 : 8) + 7) / 8 + 3);
}

TEST_CASE("read_model: any bytes are a valid model or refused", "[model][hostile]") {
  Random random{5};
  int accepted = 0;
  for (int trial = 0; trial < 20000; ++trial) {
    std::vector<std::byte> bytes(random.below(24));
    for (auto& byte : bytes) byte = static_cast<std::byte>(trial % 2 ? random() : random() & random());
    ByteReader in(bytes, "noise");
    const auto symbols = 2 + static_cast<unsigned>(random.below(trial % 3 ? 4 : 255));
    try {
      accepted += is_valid(read_model(in, 8 + static_cast<unsigned>(random.below(8)), symbols));
    } catch (const Error& error) {
      REQUIRE(error.code == Errc::malformed);
    }
  }
  REQUIRE(accepted < 2000);
}
