// Exact partitions: time and error beside Lloyd's k-means of 10 iterations from quantiles. User CPU time, best of
// several.
#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <vector>

#include "bench_time.hpp"
#include "lmq/quant/partition.hpp"
#include "lmq/quant/quantizer.hpp"

namespace {

using lmq::PartitionSolver;

struct Line {
  std::vector<double> values, weights;
};

Line sorted_line(std::vector<double> values, bool weighted, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  std::ranges::sort(values);
  values.erase(std::unique(values.begin(), values.end()), values.end());
  Line line{std::move(values), {}};
  if (weighted)
    for (std::size_t i = 0; i < line.values.size(); ++i) line.weights.push_back(std::exp(normal(random)));
  return line;
}

std::vector<double> normal_values(std::size_t n, std::uint64_t seed, bool heavy = false) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  std::student_t_distribution<double> student(4);
  std::vector<double> values(n);
  for (double& v : values) v = static_cast<float>(0.02 * (heavy ? student(random) : normal(random)));
  return values;
}

Line bf16_histogram(std::size_t n) {
  std::vector<double> count(65536);
  for (const double v : normal_values(n, 3)) {
    const auto f = static_cast<float>(v);
    std::uint32_t bits = 0;
    std::memcpy(&bits, &f, 4);
    bits += 0x7FFF + (bits >> 16 & 1);
    count[bits >> 16] += 1;
  }
  Line line;
  const auto add = [&](std::uint32_t pattern) {
    if (count[pattern] == 0) return;
    const std::uint32_t bits = pattern << 16;
    float f = 0;
    std::memcpy(&f, &bits, 4);
    line.values.push_back(f), line.weights.push_back(count[pattern]);
  };
  for (std::uint32_t p = 0xFFFF; p > 0x8000; --p) add(p);
  for (std::uint32_t p = 0; p < 0x8000; ++p) add(p);
  return line;
}

// Ten rounds of Lloyd from quantiles over sorted points; the loss.
double lloyd(const Line& line, std::size_t cells) {
  const std::size_t m = line.values.size();
  std::vector<std::size_t> ends(cells + 1);
  std::vector<double> levels(cells);
  const auto weight = [&](std::size_t i) { return line.weights.empty() ? 1.0 : line.weights[i]; };
  for (std::size_t t = 0; t <= cells; ++t) ends[t] = t * m / cells;
  double loss = 0;
  for (int round = 0; round <= 10; ++round) {
    loss = 0;
    for (std::size_t t = 0; t < cells; ++t) {
      double a = 0, b = 0, c = 0;
      for (std::size_t i = ends[t]; i < ends[t + 1]; ++i)
        a += weight(i), b += weight(i) * line.values[i], c += weight(i) * line.values[i] * line.values[i];
      if (a > 0) levels[t] = b / a, loss += c - b * b / a;
    }
    for (std::size_t t = 1; t < cells && round < 10; ++t)
      ends[t] = static_cast<std::size_t>(std::ranges::upper_bound(line.values, 0.5 * (levels[t - 1] + levels[t])) -
                                         line.values.begin());
  }
  return loss;
}

void tensors() {
  fmt::print("sorted points, one core{:>38} {:>12} {:>14} {:>12}\n", "exact ms", "loss", "Lloyd(10) ms", "its loss");
  const auto row = [](const char* name, const Line& line, std::size_t cells, PartitionSolver::Engine engine, int runs) {
    PartitionSolver solver;
    const double exact = bench::best_of(runs, [&] { (void)solver.solve(line.values, line.weights, cells, engine); });
    double worse = 0;
    const double simple = bench::best_of(3, [&] { worse = lloyd(line, cells); });
    fmt::print("{:34} m={:<7} K={:<4} {:10.3f} {:12.6g} {:14.3f} {:11.2f}x\n", name, line.values.size(), cells,
               exact * 1e3, solver.loss(), simple * 1e3, worse / solver.loss());
  };
  using Engine = PartitionSolver::Engine;
  const Line dense = sorted_line(normal_values(65536, 1), true, 2),
             heavy = sorted_line(normal_values(65536, 5, true), true, 6);
  const Line histogram = bf16_histogram(1 << 22);
  for (const std::size_t cells : {4, 16, 64, 256}) {
    row("normal, weighted", dense, cells, Engine::automatic, 5);
    row("Student t4, weighted", heavy, cells, Engine::automatic, 5);
  }
  for (const std::size_t cells : {2, 4, 8, 16, 32, 64, 128, 256}) {
    row("BF16 histogram of 2^22 normal", histogram, cells, Engine::automatic, 9);
  }
}

// Upper halves only: what BF16 weights are.
void round_to_bf16(std::vector<float>& values) {
  for (float& v : values) {
    auto bits = std::bit_cast<std::uint32_t>(v);
    bits += 0x7FFF + (bits >> 16 & 1);
    v = std::bit_cast<float>(bits & 0xFFFF0000u);
  }
}

// Nanoseconds a weight to fit codebooks of runs of n weights, sort included.
double fit_runs(std::span<const float> values, std::span<const float> importance, std::size_t n, std::size_t levels) {
  const auto method = lmq::find_quantizer("kmeans").make({levels});
  lmq::Workspace scratch;
  return 1e9 / static_cast<double>(values.size()) * bench::best_of(5, [&] {
           for (std::size_t i = 0; i + n <= values.size(); i += n)
             (void)method->fit_values(values.subspan(i, n), importance.empty() ? importance : importance.subspan(i, n),
                                      scratch);
         });
}

void rows() {
  fmt::print("\nns per weight of a codebook for each n weights, one core (importance: lognormal)\n");
  constexpr std::size_t kWeights = std::size_t{1} << 17;
  std::mt19937_64 random(11);
  std::normal_distribution<float> normal;
  std::vector<float> importance(kWeights);
  for (float& w : importance) w = std::exp(normal(random));
  for (const bool heavy : {false, true}) {
    const auto values = normal_values(kWeights, 7, heavy);
    const std::vector<float> f32(values.begin(), values.end());
    std::vector<float> bf16 = f32;
    round_to_bf16(bf16);
    for (const std::size_t n : {32, 64, 128, 256, 1024, 4096})
      for (const std::size_t levels : {2, 4, 8, 16, 32, 256}) {
        if (levels >= n) continue;
        fmt::print(
            "{:10} n={:<5} K={:<4} F32 {:6.1f}  with importance {:6.1f}   BF16 {:6.1f}  with importance {:6.1f}\n",
            heavy ? "Student t4" : "normal", n, levels, fit_runs(f32, {}, n, levels),
            fit_runs(f32, importance, n, levels), fit_runs(bf16, {}, n, levels), fit_runs(bf16, importance, n, levels));
      }
  }
}

}  // namespace

int main() {
  tensors();
  rows();
}
