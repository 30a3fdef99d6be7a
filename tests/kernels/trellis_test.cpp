#include "lmq/kernels/trellis.hpp"

#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <random>
#include <set>
#include <vector>

#include "lmq/kernels/rate_cells.hpp"

using namespace lmq;

namespace {
constexpr unsigned kStates[] = {4, 8, 16, 32};

double spread_of(unsigned spread) { return plain_exp2((static_cast<int>(spread) - kSpreadOfOne) / 3.0); }

std::vector<std::int32_t> normal_targets(std::size_t count, double steps, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::vector<std::int32_t> made(count);
  for (std::int32_t& target : made)
    target = static_cast<std::int32_t>(std::lrint(kTrellisOne * steps * normal(random)));
  return made;
}

struct Sample {
  std::vector<std::int32_t> target;
  std::vector<std::uint8_t> spread;
  std::vector<std::uint16_t> weight;
  [[nodiscard]] TrellisRun run() const { return {target, spread, weight}; }
};

/// Targets of mixed classes, some far outside theirs, some on ties.
Sample mixed(std::size_t count, unsigned seed, bool weighted) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  Sample made;
  for (std::size_t i = 0; i < count; ++i) {
    const unsigned spread = random() % kSpreadClasses;
    double target = normal(random) * spread_of(spread) * kTrellisOne;
    if (random() % 16 == 0) target *= 64;
    if (random() % 8 == 0) target = std::round(target / 128) * 128;
    target = std::min(std::max(target, -double(kMaxTrellisTarget)), double(kMaxTrellisTarget));
    made.target.push_back(static_cast<std::int32_t>(target));
    made.spread.push_back(static_cast<std::uint8_t>(spread));
    if (weighted) made.weight.push_back(static_cast<std::uint16_t>(random() % 511 + 1));
  }
  if (count > 2) made.target[0] = kMaxTrellisTarget, made.target[1] = -kMaxTrellisTarget, made.target[2] = 0;
  return made;
}

/// Prices that do not fall with the magnitude, else random.
TrellisRates random_rates(unsigned states, unsigned seed) {
  std::mt19937 random(seed);
  TrellisRates rates;
  rates.states = states;
  for (auto& spread : rates.price)
    for (auto& quantizer : spread) {
      std::int32_t price = 0;
      for (std::int32_t& p : quantizer) p = price += static_cast<std::int32_t>(random() % 3000);
    }
  return rates;
}

/// Price of the path that these codes are, from `state` on; the meaning in plain words.
std::int64_t cost_of(const TrellisRates& rates, const TrellisRun& run, unsigned state,
                     std::span<const std::int32_t> codes) {
  std::int64_t sum = 0;
  for (std::size_t i = 0; i < codes.size(); ++i) {
    const unsigned quantizer = rates.states == 1 ? 0 : state & 1, spread = run.spread[i];
    const std::int64_t off =
        run.target[i] - std::int64_t{kTrellisOne} * trellis_value(rates.states, quantizer, spread, codes[i]);
    const std::uint32_t magnitude = trellis_magnitude(quantizer == 0 || is_with_zero(spread), codes[i]);
    sum += off * off * (run.weight.empty() ? kTrellisOne : run.weight[i]) >> 12;
    sum += rates.price[spread][quantizer][std::min(magnitude >> rates.raw[spread], 63U)];
    if (rates.states > 1) state = trellis_next(trellis_taps(rates.states), state, codes[i]);
  }
  return sum;
}

/// Least cost over all codes of magnitude up to 24, by trying every one of them in every state.
std::int64_t least_cost(const TrellisRates& rates, const TrellisRun& run, unsigned state, std::size_t i) {
  if (i == run.target.size()) return 0;
  std::array<std::int64_t, 2> least{INT64_MAX / 2, INT64_MAX / 2};
  for (std::int32_t k = -24; k <= 24; ++k) {
    const TrellisRun one{run.target.subspan(i, 1), run.spread.subspan(i, 1),
                         run.weight.empty() ? run.weight : run.weight.subspan(i, 1)};
    std::int64_t& best = least[static_cast<unsigned>(k) & 1];
    best = std::min(best, cost_of(rates, one, state, std::array{k}));
  }
  const TrellisTaps taps = trellis_taps(rates.states);
  return std::min(least[0] + least_cost(rates, run, trellis_next(taps, state, 0), i + 1),
                  least[1] + least_cost(rates, run, trellis_next(taps, state, 1), i + 1));
}
}  // namespace

TEST_CASE("trellis: every state has two predecessors, one for each parity, of one quantizer", "[trellis]") {
  for (const unsigned states : kStates) {
    const TrellisTaps taps = trellis_taps(states);
    std::vector<std::set<unsigned>> before(states);
    for (unsigned s = 0; s < states; ++s)
      for (const int k : {0, 1, -1, -2, 7}) {
        const unsigned next = trellis_next(taps, s, k);
        REQUIRE(next < states);
        REQUIRE(trellis_before(taps, states, next, static_cast<unsigned>(k) & 1) == s);
        before[next].insert(s);
      }
    for (unsigned s = 0; s < states; ++s) {
      REQUIRE(before[s].size() == 2);
      for (const unsigned b : before[s]) REQUIRE((b & 1) == (s >= states / 2));
    }
  }
}

TEST_CASE("trellis: from any state any other is reached in log2(states) + 1 steps", "[trellis]") {
  for (const unsigned states : kStates)
    for (unsigned start = 0; start < states; ++start) {
      std::set<unsigned> reached{start};
      for (unsigned left = states; left > 0; left /= 2) {  // log2(states) + 1 times
        std::set<unsigned> next;
        for (const unsigned s : reached)
          for (const int k : {0, 1}) next.insert(trellis_next(trellis_taps(states), s, k));
        reached = next;
      }
      REQUIRE(reached.size() == states);
    }
}

TEST_CASE("trellis: zeros from state 0 stay there, and the search leaves them zero", "[trellis]") {
  for (const unsigned states : {1u, 4u, 8u, 16u, 32u}) {
    REQUIRE(trellis_next(trellis_taps(states), 0, 0) == 0);
    const TrellisRates rates = make_trellis_rates(spread_family(), states, kTrellisRho);
    const std::vector<std::int32_t> target(1000, 0);
    const std::vector<std::uint8_t> spread(1000, 0);
    std::vector<std::int32_t> codes(1000, 9);
    TrellisScratch scratch;
    scratch.reserve(1000);
    REQUIRE(trellis_search(rates, {target, spread, {}}, 0, scratch, codes) == 0);
    REQUIRE(codes == std::vector<std::int32_t>(1000, 0));
  }
}

TEST_CASE("trellis: the search finds the least cost over all paths", "[trellis]") {
  const unsigned states = GENERATE(4u, 8u, 32u), seed = GENERATE(range(0u, 12u));
  const std::size_t count = seed % 8 + 1;
  const TrellisRates rates = random_rates(states, seed);
  Sample sample = mixed(count, seed + 50, seed % 2 == 1);
  for (std::size_t i = 0; i < count; ++i)
    sample.target[i] = sample.target[i] % 4000, sample.spread[i] = static_cast<std::uint8_t>(seed % 2 ? 5 + i : 18);
  TrellisScratch scratch;
  scratch.reserve(count);
  std::vector<std::int32_t> codes(count);
  const unsigned start = seed % states;
  const unsigned last = trellis_search_reference(rates, sample.run(), start, scratch, codes);
  CAPTURE(states, seed, count);
  REQUIRE(cost_of(rates, sample.run(), start, codes) == least_cost(rates, sample.run(), start, 0));
  unsigned state = start;
  for (const std::int32_t k : codes) state = trellis_next(trellis_taps(states), state, k);
  REQUIRE(state == last);
}

TEST_CASE("trellis: the vector search gives the codes of the plain one for all states, lengths and classes",
          "[trellis][twin]") {
  const unsigned states = GENERATE(1u, 4u, 8u, 16u, 32u);
  const bool weighted = GENERATE(false, true);
  const TrellisRates rates = make_trellis_rates(spread_family(), states, states == 1 ? kScalarRho : kTrellisRho);
  for (const std::size_t count : {0u, 1u, 2u, 7u, 15u, 16u, 17u, 63u, 255u, 256u, 257u, 1000u, 3001u}) {
    const Sample sample = mixed(count, static_cast<unsigned>(count) + states, weighted);
    TrellisScratch scratch;
    scratch.reserve(count);
    std::vector<std::int32_t> expected(count), actual(count);
    const unsigned start = states == 1 ? 0 : static_cast<unsigned>(count) % states;
    const unsigned last = trellis_search_reference(rates, sample.run(), start, scratch, expected);
    CAPTURE(states, weighted, count);
    REQUIRE(trellis_search(rates, sample.run(), start, scratch, actual) == (count == 0 ? start : last));
    REQUIRE(actual == expected);
  }
}

TEST_CASE("trellis: codes are at most 2 from the target in scalar, 8 with a trellis, however far it is", "[trellis]") {
  const unsigned states = GENERATE(1u, 8u);
  const TrellisRates rates = make_trellis_rates(spread_family(), states, kTrellisRho);
  const Sample sample = mixed(2000, 77, false);
  TrellisScratch scratch;
  scratch.reserve(2000);
  std::vector<std::int32_t> codes(2000);
  (void)trellis_search(rates, sample.run(), 0, scratch, codes);
  unsigned state = 0;
  for (std::size_t i = 0; i < codes.size(); ++i) {
    const std::int64_t value = trellis_value(states, state & 1, sample.spread[i], codes[i]);
    REQUIRE(std::abs(value * kTrellisOne - sample.target[i]) <= (states == 1 ? 2 : 8) * kTrellisOne);
    if (states > 1) state = trellis_next(trellis_taps(states), state, codes[i]);
  }
}

TEST_CASE("spread tables: the family keeps the rules, and every class has tables", "[trellis]") {
  for (const SpreadTable& table : spread_family()) REQUIRE(is_valid(table));
  for (const unsigned states : {1u, 8u})
    for (unsigned spread = 0; spread < kSpreadClasses; ++spread)
      for (unsigned quantizer = 0; quantizer < (states == 1 ? 1 : 2); ++quantizer) {
        const SpreadChoice choice = spread_choice(states, quantizer, spread);
        REQUIRE(choice.table < kSpreadTables);
        const bool zero = spread_family()[choice.table].zero;
        REQUIRE(zero == (choice.raw == 0 && (quantizer == 0 || is_with_zero(spread))));
      }
}

TEST_CASE("spread tables: any counts give a table that keeps the rules", "[trellis]") {
  std::mt19937 random(3);
  for (const bool zero : {false, true}) {
    REQUIRE(is_valid(fit_spread_table({}, zero)));
    REQUIRE(is_valid(fit_spread_table(std::vector<std::uint64_t>(70, 0), zero)));
    REQUIRE(is_valid(fit_spread_table(std::vector<std::uint64_t>{1}, zero)));
    REQUIRE(is_valid(fit_spread_table(std::vector<std::uint64_t>{0, 0, 5}, zero)));
    REQUIRE(is_valid(fit_spread_table(std::vector<std::uint64_t>(200, 1ULL << 30), zero)));
    for (int trial = 0; trial < 200; ++trial) {
      std::vector<std::uint64_t> counts(random() % 80);
      for (std::uint64_t& count : counts) count = random() % (1U << random() % 30);
      REQUIRE(is_valid(fit_spread_table(counts, zero)));
    }
  }
}

namespace {
struct Measured {
  double bits, error, energy;
};
/// Bits of the built-in tables, squared error and square in steps per weight of N(0, spread of the class), forced to
/// decide every `decided` weights.
Measured measure(unsigned states, unsigned spread, std::size_t decided) {
  const std::size_t count = 1 << 16;
  const auto target = normal_targets(count, spread_of(spread), spread);
  const std::vector<std::uint8_t> spreads(count, static_cast<std::uint8_t>(spread));
  const TrellisRates rates = make_trellis_rates(spread_family(), states, states == 1 ? kScalarRho : kTrellisRho);
  TrellisScratch scratch;
  scratch.reserve(decided);
  std::vector<std::int32_t> codes(count);
  unsigned state = 0;
  for (std::size_t i = 0; i < count; i += decided) {
    const auto part = [&](const auto& all) { return std::span(all).subspan(i, std::min(decided, count - i)); };
    state = trellis_search(rates, {part(target), part(spreads), {}}, state, scratch,
                           std::span(codes).subspan(i, std::min(decided, count - i)));
  }
  Measured sum{0, 0, 0};
  state = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const SpreadChoice choice = spread_choice(states, state & 1, spread);
    const SpreadTable& table = spread_family()[choice.table];
    sum.bits += code_bits_q16(table, trellis_magnitude(table.zero, codes[i] >> choice.raw)) / 65536.0 + choice.raw;
    const double error = target[i] / 256.0 - trellis_value(states, state & 1, spread, codes[i]);
    sum.error += error * error;
    sum.energy += target[i] / 65536.0 * target[i];
    if (states > 1) state = trellis_next(trellis_taps(states), state, codes[i]);
  }
  return {sum.bits / double(count), sum.error / double(count), sum.energy / double(count)};
}
double gap(unsigned states, unsigned spread, std::size_t decided) {
  const Measured m = measure(states, spread, decided);
  return m.bits - 0.5 * plain_log2(m.energy / m.error);
}
}  // namespace

// Bounds: what was measured for N(0, 1) with fitted tables (.073 and .053 at 1 to 4 bits, scalar .24 to .26), .007 for
// the sample and for the tables, which are those of a whole class; classes 13, 16, ... are 1.2, 2.3, 3.4, 4.4, 5.4
// bits.
TEST_CASE("trellis: the gap of normal weights to the rate-distortion bound", "[trellis]") {
  for (const unsigned spread : {13u, 16u, 19u, 22u, 25u}) {
    CAPTURE(spread);
    REQUIRE(gap(8, spread, 4096) <= 0.080);
    REQUIRE(gap(32, spread, 4096) <= 0.060);
    REQUIRE(gap(4, spread, 4096) <= 0.099);
    REQUIRE(gap(1, spread, 4096) == Approx(0.25).margin(0.02));
  }
  REQUIRE(gap(8, 16, 256) <= 0.085);
  REQUIRE(gap(8, 19, 256) <= 0.085);
}

TEST_CASE("trellis: the squared error of a step is what forecasts take it for", "[trellis]") {
  for (const unsigned spread : {17u, 20u, 23u, 26u}) {  // from 2 bits on
    CAPTURE(spread);
    const double trellis = measure(8, spread, 4096).error, scalar = measure(1, spread, 4096).error;
    REQUIRE((trellis > 0.26 && trellis < 0.29));
    REQUIRE((scalar > 0.083 && scalar < 0.09));
  }
}
