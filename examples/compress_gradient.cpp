// Compresses the gradients of several workers to 4 bits a number and averages them, with nothing of lmq but
// lmq/quant/stochastic.hpp: no files, no MPI. Because the rounding is unbiased and every worker draws for itself, the
// error of the average falls with the number of workers; that of rounding to the nearest level does not.
//
//   compress_gradient [WORKERS [NUMBERS]]      default 16 workers, 100000 numbers
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "lmq/base/error.hpp"
#include "lmq/quant/stochastic.hpp"

namespace {

/// What travels from a worker: 16 levels and, for each number, the index of a level (4 bits if packed).
struct Message {
  std::vector<float> levels;
  std::vector<lmq::Code> codes;
};

Message compress(const std::vector<float>& gradient, std::uint64_t step, std::uint64_t worker) {
  Message message;
  message.levels = lmq::stochastic_levels(gradient, {}, {.levels = 16}).levels;
  message.codes.resize(gradient.size());
  lmq::round_stochastically(gradient, message.levels, step, worker, 0, message.codes);
  return message;
}

float nearest(const std::vector<float>& levels, float value) {
  return *std::ranges::min_element(levels, {}, [&](float level) { return std::abs(level - value); });
}

double squared_distance(const std::vector<double>& sum, const std::vector<double>& truth, double workers) {
  double distance = 0;
  for (std::size_t i = 0; i < sum.size(); ++i) distance += std::pow((sum[i] - truth[i]) / workers, 2);
  return distance;
}

}  // namespace

int main(int argc, char** argv) try {
  const std::uint64_t workers = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 16;
  const std::size_t numbers = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 100000;
  std::mt19937_64 random(1);
  std::lognormal_distribution<float> size(0, 1);
  std::vector<float> common(numbers);  // what the workers' gradients have in common
  for (float& value : common) value = random() % 2 == 0 ? size(random) : -size(random);

  std::vector<double> truth(numbers), unbiased(numbers), biased(numbers);
  std::normal_distribution<float> noise(0, 0.01F);
  for (std::uint64_t worker = 0; worker < workers; ++worker) {
    std::vector<float> gradient(common);
    for (float& value : gradient) value += noise(random);
    const Message message = compress(gradient, 7, worker);
    for (std::size_t i = 0; i < numbers; ++i) {
      truth[i] += gradient[i];
      unbiased[i] += message.levels[message.codes[i]];
      biased[i] += nearest(message.levels, gradient[i]);
    }
  }
  double energy = 0;
  const auto count = static_cast<double>(workers);
  for (const double value : truth) energy += std::pow(value / count, 2);
  const double drawn = squared_distance(unbiased, truth, count) / energy;
  std::printf(
      "%zu numbers from %llu workers, 16 levels each: error of the average / its norm, squared: %.6f (nearest "
      "level: %.6f)\n",
      numbers, static_cast<unsigned long long>(workers), drawn, squared_distance(biased, truth, count) / energy);
  return 0;
} catch (const lmq::Error& error) {
  std::fprintf(stderr, "compress_gradient: %s\n", error.what());
  return static_cast<int>(error.code);
}
