// Entropy-constrained fits of normal BF16 weights as they come out on average (4,766 values), at slopes, at rates, and
// curves of 40 slopes; by value and importance, too. CPU time, best of several.
#include <fmt/core.h>

#include <array>
#include <cmath>

#include "../quant/rate_samples.hpp"
#include "bench_time.hpp"
#include "lmq/quant/rate.hpp"
#include "methods/ecsq/entropy_fit.hpp"

using namespace lmq;

namespace {

constexpr std::array<std::string_view, 3> kWays{"ecsq", "ecsq-iter", "ecsq-uniform"};

/// The same weights in layers of importance: lognormal, sigma 1, independent of the value.
Group layered(Group group) {
  const Group plain = group;
  std::ranges::fill(group.mass, 0.0);
  for (int octave = -16; octave <= 16; ++octave) {
    GroupLayer layer{std::exp2(octave / 4.0), plain};
    const double z = std::log(layer.importance),
                 part = std::exp(-z * z / 2) / std::sqrt(2 * 3.14159265) * std::log(2) / 4;
    for (std::size_t j = 0; j < plain.size(); ++j) {
      layer.group.count[j] *= part;
      layer.group.mass[j] *= part * layer.importance;
      group.mass[j] += layer.group.mass[j];
    }
    group.layers.push_back(std::move(layer));
  }
  return group;
}

void at_slopes(const RateSums& line) {
  EntropyFitter fitter;
  fmt::print("{:>10} {:>6} {:>9} | ms: {:>9} {:>9} | excess of quick {:>9}\n", "lambda", "levels", "entropy", "exact",
             "quick", "uniform");
  for (const double part : {10.0, 0.3, 0.03, 0.003, 0.0003}) {
    const double lambda = part * line.energy / line.count;
    EntropyCode exact, quick, uniform;
    const double slow = bench::best_of(3, [&] { exact = fitter.at(line, {}, lambda, false); });
    const double fast = bench::best_of(5, [&] { quick = fitter.at(line, {}, lambda, true); });
    uniform = fitter.at(line, {.way = EcsqAlgorithm::uniform}, lambda, true);
    const double least = exact.found.code.price(lambda);
    fmt::print("{:>10} {:>6} {:>9.4f} | {:>13.2f} {:>9.2f} | {:>15.1e} {:>9.1e}\n", part, exact.found.code.cells(),
               exact.bits() / line.count, 1e3 * slow, 1e3 * fast, quick.found.code.price(lambda) / least - 1,
               uniform.found.code.price(lambda) / least - 1);
  }
}

void at_rates(const RateSums& line, const JointSums* joint) {
  fmt::print("{:>6} {:>13} {:>9} {:>7} {:>9} {:>9}\n", "rate", "method", "entropy", "levels", "D", "ms");
  for (const double rate : {0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 7.5})
    for (std::size_t way = 0; way < kWays.size(); ++way) {
      EntropyFitter fitter(joint);
      EntropyCode code;
      const double seconds =
          bench::best_of(2, [&] { code = fitter.fit(line, {.way = static_cast<EcsqAlgorithm>(way), .rate = rate}); });
      fmt::print("{:>6} {:>13} {:>9.4f} {:>7} {:>9.6f} {:>9.2f}\n", rate, kWays[way], code.bits() / line.count,
                 code.joint ? code.joint->levels.size() : code.found.code.cells(), code.distortion() / line.energy,
                 1e3 * seconds);
    }
}

void curves(const Group& group, const RateSums& line) {
  std::vector<double> lambdas;
  for (int k = 0; k < 40; ++k) lambdas.push_back(line.energy / line.count * std::pow(1e-3, k / 39.0));
  for (const char* name : {"ecsq", "ecsq-iter", "ecsq-uniform", "kmeans"}) {
    const QuantizerEntry& entry = find_quantizer(name);
    std::size_t points = 0;
    const double seconds =
        bench::best_of(3, [&] { points = rate_curve(group, entry.id, default_options(entry, 16), lambdas).size(); });
    fmt::print("curve of {:>13}: {} points in {:.1f} ms\n", name, points, 1e3 * seconds);
  }
}

}  // namespace

int main() {
  const Group plain = rate_samples::bf16_normal(24);
  const RateSums line(plain);
  at_slopes(line);
  at_rates(line, nullptr);
  curves(plain, line);
  const Group weighted = layered(plain);
  const RateSums weighted_line(weighted);
  const JointSums joint(weighted, weighted_line);
  fmt::print("\nby value and importance (lognormal, sigma 1, {} layers)\n", weighted.layers.size());
  at_rates(weighted_line, &joint);
  curves(weighted, weighted_line);
}
