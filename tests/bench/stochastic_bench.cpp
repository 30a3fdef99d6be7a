// Unbiased quantization: the tables of docs/methods/stochastic.md. User CPU time, best of several, one thread.
// lmq_stochastic_bench [CHECKPOINT]: with a checkpoint also the errors of its largest tensor.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>
#include <vector>

#include "bench_time.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/io/reader.hpp"
#include "lmq/kernels/stochastic.hpp"
#include "lmq/kernels/widen.hpp"
#include "lmq/quant/partition.hpp"
#include "lmq/quant/stochastic.hpp"
#include "lmq/quant/unit.hpp"
#include "lmq/quant/value_histogram.hpp"
#include "methods/stochastic/level_narrowing.hpp"

namespace {

using namespace lmq;
using Floats = std::vector<float>;

struct Source {
  const char* name;
  std::function<double(std::mt19937_64&)> draw;
};

const std::vector<Source>& sources() {
  static const std::vector<Source> all{
      {"normal", [](auto& r) { return std::normal_distribution<double>()(r); }},
      {"lognormal", [](auto& r) { return std::lognormal_distribution<double>()(r); }},
      {"exponential", [](auto& r) { return std::exponential_distribution<double>()(r); }},
      {"truncated normal",
       [](auto& r) {
         for (;;)
           if (const double x = std::normal_distribution<double>()(r); std::abs(x) <= 1) return x;
       }},
      {"Weibull", [](auto& r) { return std::weibull_distribution<double>(1.0 / 1.5, 1)(r); }}};
  return all;
}

Floats draw(const Source& source, std::size_t n, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Floats values(n);
  for (float& value : values) value = static_cast<float>(source.draw(random));
  return values;
}

Floats uniform_levels(const Floats& values, std::size_t levels) {
  const auto [low, high] = std::ranges::minmax(values);
  Floats made(levels);
  for (std::size_t k = 0; k < levels; ++k)
    made[k] = static_cast<float>(
        std::lerp(double{low}, double{high}, static_cast<double>(k) / static_cast<double>(levels - 1)));
  made.back() = high;
  return made;
}

double energy(const Floats& values) {
  double sum = 0;
  for (const float value : values) sum += double{value} * value;
  return sum;
}

void error_row(const std::string& name, const Floats& values) {
  fmt::print("| {} |", name);
  for (const std::size_t levels : {4, 8, 16, 32, 64}) {
    const double best = stochastic_levels(values, {}, {levels, LevelObjective::total_variance, 0, 0}).cost;
    const double plain = total_variance(values, {}, uniform_levels(values, levels));
    fmt::print(" {:.3g} / {:.3g} |", best / energy(values), plain / energy(values));
  }
  fmt::print("\n");
}

Floats largest_tensor(const char* path, std::string& name) {
  const auto reader = open_reader(path);
  const TensorInfo* largest = nullptr;
  for (const TensorInfo& tensor : reader->catalogue().tensors)
    if (is_float(tensor.dtype) && (largest == nullptr || tensor.count() > largest->count())) largest = &tensor;
  if (largest == nullptr) return {};
  name = largest->name;
  const std::uint64_t count = std::min<std::uint64_t>(largest->count(), std::uint64_t{1} << 22);
  std::vector<std::byte> buffer;
  const TensorView view = reader->view(*largest, 0, count, buffer);
  Floats values(view.count);
  widen(view.dtype, view.bytes, values);
  return values;
}

void errors(const char* checkpoint) {
  fmt::print("\nexpected squared error / squared norm, 2^20 values: asq / uniform stochastic\n\n");
  fmt::print("| values | 4 levels | 8 | 16 | 32 | 64 |\n|---|---|---|---|---|---|\n");
  for (const Source& source : sources()) error_row(source.name, draw(source, std::size_t{1} << 20, 1));
  std::string name;
  if (checkpoint == nullptr) return;
  const Floats values = largest_tensor(checkpoint, name);
  if (!values.empty()) error_row("weights: " + name, values);
}

struct Inputs {
  Floats moments;             // E[x_i^2]
  std::vector<Floats> drawn;  // norm about 1
};

Inputs random_inputs(std::size_t n, bool uneven) {
  std::mt19937_64 random(9);
  std::normal_distribution<double> normal;
  Inputs inputs{Floats(n, 1.0F), {}};
  double total = 0;
  for (float& moment : inputs.moments) {
    if (uneven) moment = static_cast<float>(std::exp(2 * normal(random)));
    total += moment;
  }
  for (float& moment : inputs.moments) moment = static_cast<float>(moment / total);
  for (int k = 0; k < 64; ++k) {
    inputs.drawn.emplace_back(n);
    for (std::size_t i = 0; i < n; ++i)
      inputs.drawn.back()[i] = static_cast<float>(std::sqrt(inputs.moments[i]) * normal(random));
  }
  return inputs;
}

/// Mean over inputs and roundings of <x, rounded - values>^2.
double inner_error(const Floats& values, const Floats& levels, const Inputs& inputs, bool nearest) {
  std::vector<Code> codes(values.size());
  double sum = 0;
  const int rounds = nearest ? 1 : 50;
  for (int r = 0; r < rounds; ++r) {
    if (nearest) {
      NearestLevel to;
      to.prepare(levels, DType::f32, values.size());
      to.assign(std::as_bytes(std::span(values)), codes);
    } else {
      round_stochastically(values, levels, static_cast<std::uint64_t>(r), 1, 0, codes);
    }
    for (const Floats& x : inputs.drawn) {
      double product = 0;
      for (std::size_t i = 0; i < values.size(); ++i) product += double{x[i]} * (double{levels[codes[i]]} - values[i]);
      sum += product * product;
    }
  }
  return sum / static_cast<double>(rounds) / static_cast<double>(inputs.drawn.size());
}

/// The worst input of norm 1: for nearest rounding the one along the error; for random rounding, which the input cannot
/// know, the direction of the largest variance.
double worst_error(const Floats& values, const Floats& levels, bool nearest) {
  if (!nearest) return largest_variance(values, {}, levels);
  double sum = 0;
  for (const float value : values) {
    double least = 1e300;
    for (const float level : levels) least = std::min(least, std::abs(double{level} - value));
    sum += least * least;
  }
  return sum;
}

void inner_products(const char* title, const Floats& values) {
  const std::size_t levels = 16;
  const Inputs even = random_inputs(values.size(), false), uneven = random_inputs(values.size(), true);
  fmt::print("\n{}: squared error of an inner product, {} values, {} levels, inputs of norm 1\n\n", title,
             values.size(), levels);
  fmt::print("| levels | rounding | random inputs | inputs of uneven moments | worst input |\n|---|---|---|---|---|\n");
  const LevelChoice total{levels, LevelObjective::total_variance, 0, 0};
  const std::vector<std::pair<const char*, Floats>> books{
      {"asq", stochastic_levels(values, {}, total).levels},
      {"asq-ip-mean (moments known)", stochastic_levels(values, uneven.moments, total).levels},
      {"asq-ip-worst", stochastic_levels(values, {}, {levels, LevelObjective::largest_variance, 0, 0}).levels},
      {"uniform", uniform_levels(values, levels)}};
  for (const auto& [name, book] : books)
    for (const bool nearest : {false, true})
      fmt::print("| {} | {} | {:.3g} | {:.3g} | {:.3g} |\n", name, nearest ? "nearest" : "stochastic",
                 inner_error(values, book, even, nearest), inner_error(values, book, uneven, nearest),
                 worst_error(values, book, nearest));
}

/// The plain quadratic programme: O(levels n^2).
double quadratic(const Floats& sorted, std::size_t levels) {
  const std::size_t n = sorted.size();
  std::vector<double> A(n + 1), B(n + 1), before(n), now(n);
  for (std::size_t i = 0; i < n; ++i) A[i + 1] = A[i] + sorted[i], B[i + 1] = B[i] + double{sorted[i]} * sorted[i];
  const auto cost = [&](std::size_t k, std::size_t j) {
    const double a = sorted[k], b = sorted[j];
    return (a + b) * (A[j + 1] - A[k + 1]) - (B[j + 1] - B[k + 1]) - a * b * static_cast<double>(j - k);
  };
  for (std::size_t j = 0; j < n; ++j) before[j] = cost(0, j);
  for (std::size_t s = 3; s <= levels; ++s) {
    for (std::size_t j = 0; j < n; ++j) {
      now[j] = before[j];
      for (std::size_t k = 0; k < j; ++k) now[j] = std::min(now[j], before[k] + cost(k, j));
    }
    std::swap(before, now);
  }
  return before[n - 1];
}

void solver_times() {
  fmt::print(
      "\nlevels, one core, milliseconds\n\n| values | levels | asq | slack .001 | grid 1024 | layered programme | "
      "quadratic programme |\n|---|---|---|---|---|---|---|\n");
  for (const auto& [source, log] :
       {std::pair<std::size_t, int>{0, 12}, {0, 16}, {0, 20}, {0, 24}, {1, 12}, {1, 20}, {1, 24}})
    for (const std::size_t levels : {16, 64}) {
      Floats values = draw(sources()[source], std::size_t{1} << log, 5);
      std::ranges::sort(values);
      const int runs = log > 20 ? 2 : 4;
      const auto time = [&](double slack, std::size_t grid) {
        return 1e3 * bench::best_of(runs, [&] {
                 (void)stochastic_levels(values, {}, {levels, LevelObjective::total_variance, slack, grid});
               });
      };
      std::string layered = "-", plain = "-";
      if (log <= 16) {
        LevelSums line;
        for (std::size_t i = 0; i < values.size(); ++i) line.add({values[i], values[i], 1, values[i], 0, 0});
        line.finish();
        LevelNarrowing solver;
        layered = fmt::format("{:.1f}", 1e3 * bench::best_of(1, [&] {
                                          (void)solver.solve(line, levels, 0, LevelNarrowing::Engine::layered);
                                        }));
      }
      double check = 0;
      if (log <= 12) plain = fmt::format("{:.0f}", 1e3 * bench::best_of(1, [&] { check = quadratic(values, levels); }));
      fmt::print("| 2^{} {} | {} | {:.1f} | {:.1f} | {:.1f} | {} | {} |\n", log, sources()[source].name, levels,
                 time(0, 0), time(1e-3, 0), time(0, 1024), layered, plain);
    }
}

void sixteen_bits() {
  constexpr std::size_t kCount = std::size_t{1} << 24;
  Floats values = draw(sources()[0], kCount, 7);
  std::vector<std::byte> bytes(2 * kCount);
  narrow_to(DType::bf16, values, bytes);
  const TensorView view{DType::bf16, bytes, kCount};
  fmt::print(
      "\nBF16, 2^24 normal weights, one core\n\n| levels | exact levels, ms | rounding, ns per weight | levels, "
      "codes and errors, ns per weight |\n|---|---|---|---|\n");
  for (const std::size_t levels : {4, 16, 64, 256}) {
    const auto& entry = find_quantizer("asq");
    const auto method = entry.make(default_options(entry, levels));
    Codebook book;
    const double fit =
        bench::best_of(3, [&] { book = method->fit(ValueHistogram::of(view, {}, {}).group(1)).codebook; });
    std::vector<Code> codes(kCount);
    StochasticLevel rounding;
    rounding.prepare(book.levels(), DType::bf16, 3, kCount);
    const double assign = bench::best_of(3, [&] { rounding.assign(bytes, 0, codes); });
    QuantSpec spec;
    spec.method = entry.id;
    spec.options = default_options(entry, levels);
    QuantizedUnit unit;
    const double all = bench::best_of(3, [&] {
      unit = quantize_unit({view, {}, 4096}, spec, nullptr, std::move(unit)).unit;
    });
    fmt::print("| {} | {:.1f} | {:.2f} | {:.2f} |\n", levels, 1e3 * fit, 1e9 * assign / kCount, 1e9 * all / kCount);
  }
}

}  // namespace

int main(int argc, char** argv) {
  set_thread_count(1);
  solver_times();
  sixteen_bits();
  errors(argc > 1 ? argv[1] : nullptr);
  inner_products("normal", draw(sources()[0], 4096, 11));
  inner_products("Weibull", draw(sources()[4], 4096, 12));
}
