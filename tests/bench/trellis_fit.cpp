// Fits the built-in tables of trellis codes and prints src/kernels/spread_family.cpp, or measures them:
//   lmq_trellis_fit            the tables
//   lmq_trellis_fit rates      bits and error of each class, for forecasts
//   lmq_trellis_fit measure    gap of N(0, 1) to the rate-distortion bound and time of the search, by states and bits
#include <fmt/format.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "bench_time.hpp"
#include "lmq/kernels/isa.hpp"
#include "lmq/kernels/trellis.hpp"

namespace {
using namespace lmq;

double spread_of(unsigned spread) { return std::exp2((static_cast<int>(spread) - kSpreadOfOne) / 3.0); }

struct Weights {
  std::vector<std::int32_t> target;  ///< in 1/256 step
  std::vector<std::uint8_t> spread;
};

/// Normal weights of a class. `blur`: classes are 1/3 octave wide, so spreads within them differ. `between`: every
/// second weight at random is of that class instead, as the paths of real layers mix classes.
Weights normal_weights(std::size_t count, unsigned spread, bool blur, unsigned between, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  std::uniform_real_distribution<double> within(-1.0 / 6, 1.0 / 6);
  Weights made;
  for (std::size_t i = 0; i < count; ++i) {
    const unsigned c = random() % 2 == 0 ? between : spread;
    made.spread.push_back(static_cast<std::uint8_t>(c));
    made.target.push_back(static_cast<std::int32_t>(
        std::lrint(256 * spread_of(c) * std::exp2(blur ? within(random) : 0) * normal(random))));
  }
  return made;
}

struct Coded {
  std::vector<std::vector<std::uint64_t>> counts;  ///< by quantizer, by magnitude of the high part
  double bits = 0, error = 0;                      ///< per weight
};

/// Codes the weights and counts those of one class.
Coded code(const SpreadFamily& family, const TrellisRates& rates, unsigned spread, const Weights& weights,
           std::size_t run) {
  const std::size_t count = weights.target.size();
  std::vector<std::int32_t> codes(count);
  TrellisScratch scratch;
  scratch.reserve(run);
  unsigned state = 0;
  for (std::size_t i = 0; i < count; i += run) {
    const auto part = [&](auto& all) { return std::span(all).subspan(i, std::min(run, count - i)); };
    state = trellis_search(rates, {part(weights.target), part(weights.spread), {}}, state, scratch, part(codes));
  }
  Coded coded{.counts = std::vector(2, std::vector<std::uint64_t>(64))};
  const TrellisTaps taps = trellis_taps(rates.states);
  std::size_t counted = 0;
  state = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const unsigned quantizer = state & 1;
    if (weights.spread[i] == spread) {
      const SpreadChoice choice = spread_choice(rates.states, quantizer, spread);
      const SpreadTable& table = family[choice.table];
      const std::uint32_t magnitude = trellis_magnitude(table.zero, codes[i] >> choice.raw);
      ++coded.counts[quantizer][std::min<std::uint32_t>(magnitude, 63)];
      coded.bits += code_bits_q16(table, magnitude) / 65536.0 + choice.raw;
      const double error = weights.target[i] / 256.0 - trellis_value(rates.states, quantizer, spread, codes[i]);
      coded.error += error * error;
      ++counted;
    }
    state = rates.states == 1 ? 0 : trellis_next(taps, state, codes[i]);
  }
  coded.bits /= static_cast<double>(counted), coded.error /= static_cast<double>(counted);
  return coded;
}

/// Counts of plain normal cells, `total` in all: to begin with, and for codes that do not come.
std::vector<std::uint64_t> normal_counts(double sigma, double step, bool zero, double total) {
  std::vector<std::uint64_t> counts(64);
  const auto below = [&](double x) { return 0.5 * std::erfc(-x / sigma / std::sqrt(2)); };
  for (std::size_t m = 0; m < counts.size(); ++m) {
    const double low = zero ? (m == 0 ? 0 : step * (double(m) - .5)) : step * double(m);
    const double high = zero ? step * (double(m) + .5) : step * double(m + 1);
    counts[m] = static_cast<std::uint64_t>(2 * total * (below(high) - below(low)));
  }
  return counts;
}

constexpr unsigned kBetween = 18;

SpreadFamily fit() {
  SpreadFamily family;
  const auto plain = [&](unsigned t, double total) {
    const bool scalar = t >= kTrellisTables;
    const unsigned c = scalar ? t - kTrellisTables : t / 2;
    const bool zero = scalar || t % 2 == 0 || is_with_zero(c);
    return std::pair(normal_counts(spread_of(c), scalar ? 1 : 2, zero, total), zero);
  };
  const auto update = [&](unsigned t, std::vector<std::uint64_t> counts) {
    std::uint64_t total = 1024;
    for (const std::uint64_t count : counts) total += count;
    const auto [cells, zero] = plain(t, static_cast<double>(total) / 1024);
    for (std::size_t m = 0; m < counts.size(); ++m) counts[m] += cells[m];
    return fit_spread_table(counts, zero);
  };
  for (unsigned t = 0; t < kSpreadTables; ++t) {
    const auto [cells, zero] = plain(t, 1e9);
    family[t] = fit_spread_table(cells, zero);
  }
  for (int pass = 0; pass < 6; ++pass) {
    const TrellisRates trellis = make_trellis_rates(family, 8, kTrellisRho),
                       scalar = make_trellis_rates(family, 1, kScalarRho);
    SpreadFamily next = family;
    for (unsigned c = 0; c < kTrellisTables / 2; ++c) {
      const std::size_t count = pass < 4 ? 1 << 18 : 1 << 20;
      const Weights weights = normal_weights(count, c, true, is_with_zero(c) ? kBetween : c, 1000 + c);
      const Coded coded = code(family, trellis, c, weights, 4096);
      for (unsigned q = 0; q < 2; ++q) next[2 * c + q] = update(2 * c + q, coded.counts[q]);
      if (c < kScalarTables)
        next[kTrellisTables + c] = update(kTrellisTables + c, code(family, scalar, c, weights, 4096).counts[0]);
    }
    family = next;
  }
  return family;
}

void print(const SpreadFamily& family) {
  fmt::print(
      "#include \"lmq/kernels/spread_tables.hpp\"\n\nnamespace lmq {{\nnamespace {{\n"
      "// Printed by lmq_trellis_fit.\nconst SpreadFamily kFamily{{{{\n");
  for (const SpreadTable& table : family) {
    fmt::print("    {{{}, {}, {}, {{", table.zero, table.magnitudes, table.escape);
    for (unsigned m = 0; m < table.magnitudes; ++m) fmt::print("{}{}", m > 0 ? ", " : "", table.freq[m]);
    fmt::print("}}}},\n");
  }
  fmt::print(
      "}}}};\n}}  // namespace\n\nconst SpreadFamily& spread_family() noexcept {{ return kFamily; }}\n\n"
      "}}  // namespace lmq\n");
}

void measure(std::size_t run) {
  fmt::print("{}, runs of {}\nstates class   bits  error    gap    ns\n", isa_name(), run);
  for (const unsigned states : {1u, 4u, 8u, 16u, 32u}) {
    const TrellisRates rates = make_trellis_rates(spread_family(), states, states == 1 ? kScalarRho : kTrellisRho);
    for (const unsigned spread : {9u, 10u, 11u, 12u, 13u, 16u, 19u, 22u, 25u, 28u}) {
      const Weights weights = normal_weights(1 << 18, spread, false, spread, 5);
      const Coded coded = code(spread_family(), rates, spread, weights, run);
      std::vector<std::int32_t> codes(run);
      TrellisScratch scratch;
      scratch.reserve(run);
      const double seconds = bench::best_of(20, [&] {
        (void)trellis_search(rates, {std::span(weights.target).first(run), std::span(weights.spread).first(run), {}}, 0,
                             scratch, codes);
      });
      const double sigma2 = spread_of(spread) * spread_of(spread);
      fmt::print("{:6} {:5} {:6.3f} {:6.4f} {:6.4f} {:5.1f}\n", states, spread, coded.bits, coded.error,
                 coded.bits - 0.5 * std::log2(sigma2 / coded.error), 1e9 * seconds / static_cast<double>(run));
    }
  }
}

/// Bits and squared error (in squared steps) of every class, as src/quant/matrix/trellis_rate.cpp holds them.
void print_rates() {
  for (const unsigned states : {1u, 4u, 8u, 16u, 32u}) {
    const TrellisRates rates = make_trellis_rates(spread_family(), states, states == 1 ? kScalarRho : kTrellisRho);
    fmt::print("    {{{{{{");
    for (unsigned c = 0; c < 29; ++c) {
      const Weights weights = normal_weights(1 << 19, c, true, is_with_zero(c) ? kBetween : c, 77 + c);
      const Coded coded = code(spread_family(), rates, c, weights, 4096);
      fmt::print("{}{{{:.4f}, {:.4f}}}", c > 0 ? ", " : "", coded.bits, coded.error);
    }
    fmt::print("}}}}}},\n");
  }
}
}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::string(argv[1]) == "rates")
    print_rates();
  else if (argc > 1 && std::string(argv[1]) == "measure")
    measure(argc > 2 ? std::stoull(argv[2]) : 4096);
  else
    print(fit());
  return 0;
}
