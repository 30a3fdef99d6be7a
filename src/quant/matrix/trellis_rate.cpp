#include "lmq/quant/trellis_rate.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "lmq/kernels/rate_cells.hpp"
#include "lmq/kernels/spread_tables.hpp"

namespace lmq {
namespace {
constexpr std::size_t kClasses = 29;  // a third of an octave each, from 2^-4 on
constexpr double kTwoLn2 = 1.3862943611198906;
using Rates = std::array<TrellisRate, kClasses>;

// Printed by lmq_trellis_fit rates.
constexpr std::array<Rates, 5> kRates{{
    {{{0.0004, 0.0039}, {0.0004, 0.0063}, {0.0004, 0.0099}, {0.0004, 0.0158}, {0.0004, 0.0250}, {0.0004, 0.0397},
      {0.0004, 0.0628}, {0.0004, 0.1000}, {0.1038, 0.1436}, {0.6840, 0.1281}, {1.1885, 0.1091}, {1.5952, 0.0995},
      {1.9684, 0.0936}, {2.3344, 0.0899}, {2.6868, 0.0874}, {3.0323, 0.0859}, {3.3748, 0.0850}, {3.7139, 0.0843},
      {4.0514, 0.0841}, {4.3854, 0.0836}, {4.7194, 0.0838}, {5.0523, 0.0836}, {5.3880, 0.0837}, {5.7246, 0.0837},
      {6.0579, 0.0834}, {6.3870, 0.0835}, {6.7258, 0.0836}, {7.0566, 0.0834}, {7.3917, 0.0832}}},
    {{{0.0004, 0.0039}, {0.0004, 0.0063}, {0.0004, 0.0099}, {0.0004, 0.0158}, {0.0004, 0.0250}, {0.0004, 0.0397},
      {0.0004, 0.0628}, {0.0004, 0.1000}, {0.0004, 0.1586}, {0.0004, 0.2542}, {0.0343, 0.3872}, {0.6139, 0.3784},
      {0.8774, 0.3431}, {1.2508, 0.3211}, {1.6281, 0.3016}, {1.9955, 0.2874}, {2.3500, 0.2798}, {2.6980, 0.2741},
      {3.0415, 0.2707}, {3.3784, 0.2690}, {3.7145, 0.2677}, {4.0483, 0.2667}, {4.3825, 0.2660}, {4.7206, 0.2660},
      {5.0551, 0.2658}, {5.3861, 0.2659}, {5.7251, 0.2657}, {6.0563, 0.2653}, {6.3913, 0.2659}}},
    {{{0.0004, 0.0039}, {0.0004, 0.0063}, {0.0004, 0.0099}, {0.0004, 0.0158}, {0.0004, 0.0250}, {0.0004, 0.0397},
      {0.0004, 0.0628}, {0.0004, 0.1000}, {0.0004, 0.1586}, {0.0004, 0.2542}, {0.0365, 0.3865}, {0.6279, 0.3755},
      {0.8730, 0.3372}, {1.2471, 0.3157}, {1.6251, 0.2967}, {1.9928, 0.2828}, {2.3491, 0.2745}, {2.6974, 0.2693},
      {3.0409, 0.2654}, {3.3784, 0.2634}, {3.7143, 0.2621}, {4.0482, 0.2612}, {4.3822, 0.2607}, {4.7206, 0.2602},
      {5.0548, 0.2604}, {5.3861, 0.2605}, {5.7251, 0.2601}, {6.0562, 0.2598}, {6.3913, 0.2601}}},
    {{{0.0004, 0.0039}, {0.0004, 0.0063}, {0.0004, 0.0099}, {0.0004, 0.0158}, {0.0004, 0.0250}, {0.0004, 0.0397},
      {0.0004, 0.0628}, {0.0004, 0.1000}, {0.0004, 0.1586}, {0.0004, 0.2542}, {0.0354, 0.3870}, {0.6325, 0.3739},
      {0.8699, 0.3339}, {1.2445, 0.3125}, {1.6244, 0.2929}, {1.9922, 0.2792}, {2.3493, 0.2707}, {2.6973, 0.2652},
      {3.0403, 0.2619}, {3.3784, 0.2597}, {3.7142, 0.2587}, {4.0479, 0.2579}, {4.3822, 0.2572}, {4.7205, 0.2568},
      {5.0548, 0.2566}, {5.3861, 0.2569}, {5.7251, 0.2567}, {6.0563, 0.2565}, {6.3912, 0.2565}}},
    {{{0.0004, 0.0039}, {0.0004, 0.0063}, {0.0004, 0.0099}, {0.0004, 0.0158}, {0.0004, 0.0250}, {0.0004, 0.0397},
      {0.0004, 0.0628}, {0.0004, 0.1000}, {0.0004, 0.1586}, {0.0004, 0.2542}, {0.0359, 0.3868}, {0.6333, 0.3736},
      {0.8669, 0.3300}, {1.2425, 0.3086}, {1.6232, 0.2893}, {1.9921, 0.2750}, {2.3489, 0.2669}, {2.6971, 0.2614},
      {3.0403, 0.2583}, {3.3779, 0.2562}, {3.7141, 0.2547}, {4.0478, 0.2541}, {4.3824, 0.2532}, {4.7206, 0.2531},
      {5.0549, 0.2530}, {5.3858, 0.2534}, {5.7251, 0.2531}, {6.0562, 0.2527}, {6.3911, 0.2529}}},
}};

const Rates& rates_of(unsigned states) noexcept {
  return kRates[states == 1 ? 0 : states == 4 ? 1 : states == 8 ? 2 : states == 16 ? 3 : 4];
}

/// Bits and squared steps of all weights at a step. What errors add to a target is that of the average weight.
TrellisRate sums_at(const std::vector<SpreadHistogram::Bin>& bins, unsigned states, double step) {
  const double scale = 1 / (step * step);
  double weights = 0, error = 0;
  for (const SpreadHistogram::Bin& bin : bins) {
    weights += static_cast<double>(bin.weights);
    error += static_cast<double>(bin.weights) * trellis_rate(states, bin.square * scale).error;
  }
  if (weights > 0) error /= weights;
  TrellisRate sums;
  for (const SpreadHistogram::Bin& bin : bins) {
    const TrellisRate rate = trellis_rate(states, bin.square * scale + bin.gain * error);
    sums.bits += static_cast<double>(bin.weights) * rate.bits,
        sums.error += static_cast<double>(bin.weights) * rate.error;
  }
  return sums;
}
}  // namespace

TrellisRate trellis_rate(unsigned states, double square) noexcept {
  const Rates& rates = rates_of(states);
  if (!(square > 0x1p-1000)) return {0, std::max(square, 0.0)};
  const double at = 1.5 * plain_log2(square) + kSpreadOfOne;
  if (at <= 0) {  // next to nothing is coded: the bits of the lowest class shrink with the square
    const double part = square * 256;
    return {rates[0].bits * part, square};
  }
  if (at >= kClasses - 1) return {rates.back().bits + (at - (kClasses - 1)) / 3, rates.back().error};
  const auto low = static_cast<std::size_t>(at);
  const double part = at - static_cast<double>(low);
  const TrellisRate &a = rates[low], &b = rates[low + 1];
  return {a.bits + part * (b.bits - a.bits), a.error + part * (b.error - a.error)};
}

double slope_of_step(unsigned states, double step) noexcept {
  return kTwoLn2 * rates_of(states).back().error * step * step;
}

double step_at_slope(unsigned states, double slope) noexcept {
  return std::sqrt(slope / (kTwoLn2 * rates_of(states).back().error));
}

std::vector<RatePoint> trellis_curve(const SpreadHistogram& histogram, unsigned states,
                                     std::span<const double> lambdas) {
  const std::vector<SpreadHistogram::Bin> bins = histogram.bins();
  std::vector<RatePoint> points;
  for (const double lambda : lambdas) {
    const double step = step_at_slope(states, lambda);
    const TrellisRate sums = sums_at(bins, states, step);
    points.push_back({lambda, sums.bits, sums.error * step * step, 0});
  }
  return points;
}

double step_for_bits(const SpreadHistogram& histogram, unsigned states, double bits) {
  double low = 0x1p-100, high = 0x1p100;  // bits fall with the step
  const std::vector<SpreadHistogram::Bin> bins = histogram.bins();
  const auto weights = static_cast<double>(histogram.weights());
  while (high / low > 1 + 0x1p-20) {
    const double middle = std::sqrt(low) * std::sqrt(high);
    (sums_at(bins, states, middle).bits > bits * weights ? low : high) = middle;
  }
  return high;
}

}  // namespace lmq
