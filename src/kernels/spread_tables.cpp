#include "lmq/kernels/spread_tables.hpp"

#include <algorithm>
#include <cmath>

#include "lmq/kernels/rate_cells.hpp"

namespace lmq {
namespace {
constexpr std::uint32_t kWhole = 1U << kSpreadBits;
constexpr unsigned kTopClass = kTrellisTables / 2 - 1;  // spread 16 steps of a trellis, 8 of k

/// One frequency while a table is fitted: `symbols` codes have it.
struct Share {
  double count = 0;
  std::uint32_t symbols = 1, freq = 1;
  [[nodiscard]] double bits_of(std::uint32_t f) const noexcept { return count * plain_log2(f) / symbols; }
  [[nodiscard]] double gain() const noexcept { return bits_of(freq + 1) - bits_of(freq); }
  [[nodiscard]] double loss() const noexcept { return bits_of(freq) - bits_of(freq - 1); }
};

/// Magnitudes at least as frequent as half of the least frequency; those beyond are escapes.
std::size_t magnitudes_worth(std::span<const std::uint64_t> counts, std::uint64_t total) noexcept {
  std::size_t worth = 1;
  for (std::size_t m = 0; m < std::min<std::size_t>(counts.size(), kMaxMagnitudes); ++m)
    if (counts[m] * kWhole >= total && counts[m] > 0) worth = m + 1;
  return worth;
}

std::uint32_t sum_of(std::span<const Share> shares) noexcept {
  std::uint32_t sum = 0;
  for (const Share& share : shares) sum += share.symbols * share.freq;
  return sum;
}

/// One more where it gains most per code, one fewer where it loses least, until the sum is the whole.
void fill_up(std::span<Share> shares) noexcept {
  for (std::uint32_t sum = sum_of(shares); sum > kWhole; sum = sum_of(shares)) {
    Share* least = nullptr;
    for (Share& share : shares)
      if (share.freq > 1 && (least == nullptr || share.loss() < least->loss())) least = &share;
    --least->freq;
  }
  for (std::uint32_t sum = sum_of(shares); sum < kWhole; sum = sum_of(shares)) {
    Share* most = nullptr;
    for (Share& share : shares)
      if (share.symbols <= kWhole - sum && (most == nullptr || share.gain() > most->gain())) most = &share;
    ++most->freq;
  }
}
}  // namespace

bool is_valid(const SpreadTable& table) noexcept {
  if (table.magnitudes < 1 || table.magnitudes > kMaxMagnitudes || table.escape < 1) return false;
  std::uint32_t sum = table.escape;
  for (unsigned m = 0; m < kMaxMagnitudes; ++m) {
    if ((table.freq[m] != 0) != (m < table.magnitudes)) return false;
    sum += (table.zero && m == 0 ? 1U : 2U) * table.freq[m];
  }
  return sum == kWhole;
}

SpreadChoice spread_choice(unsigned states, unsigned quantizer, unsigned spread) noexcept {
  if (states == 1 && spread < kScalarTables) return {kTrellisTables + spread, 0};
  if (states == 1) spread += 3;  // steps of 1 are k itself: as a trellis of twice the spread
  if (spread <= kTopClass) return {2 * spread + quantizer, 0};
  const unsigned raw = (spread - kTopClass + 2) / 3;
  return {2 * (spread - 3 * raw) + 1, raw};
}

std::uint32_t code_bits_q16(const SpreadTable& table, std::uint32_t magnitude) noexcept {
  const bool escapes = magnitude >= table.magnitudes;
  const double coded = kSpreadBits - plain_log2(escapes ? table.escape : table.freq[magnitude]);
  const unsigned beyond = escapes ? escape_bits(magnitude - table.magnitudes) : 0;
  return static_cast<std::uint32_t>((coded + beyond) * 65536 + 0.5);
}

SpreadTable fit_spread_table(std::span<const std::uint64_t> counts, bool zero) {
  std::uint64_t total = 0;
  for (const std::uint64_t count : counts) total += count;
  const std::size_t magnitudes = magnitudes_worth(counts, total);
  std::array<Share, kMaxMagnitudes + 1> room;
  const std::span<Share> shares = std::span(room).first(magnitudes + 1);
  Share& escape = shares[magnitudes];
  escape.symbols = zero ? 1 : 2;  // an odd escape would leave an odd rest for pairs
  escape.count = static_cast<double>(total);
  for (std::size_t m = 0; m < magnitudes; ++m) {
    const std::uint64_t count = m < counts.size() ? counts[m] : 0;
    shares[m].symbols = zero && m == 0 ? 1 : 2;
    shares[m].count = std::max(static_cast<double>(count), 0.25);
    escape.count -= static_cast<double>(count);
  }
  escape.count = std::max(escape.count, 0.25);
  double sum = 0;
  for (const Share& share : shares) sum += share.count;
  for (Share& share : shares)
    share.freq = std::max(1U, static_cast<std::uint32_t>(share.count / sum * kWhole / share.symbols));
  fill_up(shares);
  SpreadTable table;
  table.zero = zero;
  table.magnitudes = static_cast<std::uint8_t>(magnitudes);
  for (std::size_t m = 0; m < magnitudes; ++m) table.freq[m] = static_cast<std::uint16_t>(shares[m].freq);
  table.escape = static_cast<std::uint16_t>(escape.freq * escape.symbols);
  return table;
}

TrellisRates make_trellis_rates(const SpreadFamily& family, unsigned states, double rho) noexcept {
  TrellisRates rates;
  rates.states = states;
  for (unsigned spread = 0; spread < kSpreadClasses; ++spread)
    for (unsigned quantizer = 0; quantizer < 2; ++quantizer) {
      const SpreadChoice choice = spread_choice(states, quantizer, spread);
      rates.raw[spread] = static_cast<std::int32_t>(choice.raw);
      for (unsigned m = 0; m < kPricedMagnitudes; ++m)
        rates.price[spread][quantizer][m] =
            static_cast<std::int32_t>(std::floor(rho * 4096 / 65536 * code_bits_q16(family[choice.table], m) + 0.5));
    }
  return rates;
}

}  // namespace lmq
