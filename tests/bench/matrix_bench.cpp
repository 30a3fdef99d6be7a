// The parts of waterfill on one core: products beside OpenBLAS, factors, a layer coded.
//   lmq_matrix_bench [size]        a square layer with curvature on both sides, 4096 by default
//   lmq_matrix_bench gap           bits beyond reverse water-filling, spectrum j^-1.5, rotated, all bytes of the record
#include <cblas.h>
#include <fmt/format.h>

#include <array>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "bench_time.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/codec/trellis_record.hpp"
#include "lmq/kernels/isa.hpp"
#include "lmq/kernels/product.hpp"
#include "lmq/quant/trellis_layer.hpp"

extern "C" void openblas_set_num_threads(int);

namespace {
using namespace lmq;

std::vector<float> normal(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> draw;
  std::vector<float> made(count);
  for (float& x : made) x = draw(random);
  return made;
}

/// Q diag((j + 1)^-power) Q^T, with a rotation of random reflections.
std::vector<double> rotated(std::size_t n, double power, unsigned seed) {
  std::vector<double> matrix(n * n, 0.0), image(n);
  for (std::size_t k = 0; k < n; ++k) matrix[k * n + k] = std::pow(static_cast<double>(k + 1), -power);
  for (unsigned reflection = 0; reflection < 12; ++reflection) {
    const std::vector<float> v = normal(n, seed + reflection);
    double norm = 0, inner = 0;
    for (const double x : v) norm += x * x;
    for (std::size_t i = 0; i < n; ++i) {
      image[i] = 0;
      for (std::size_t j = 0; j < n; ++j) image[i] += matrix[i * n + j] * v[j];
      inner += image[i] * v[i];
    }
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t j = 0; j < n; ++j)
        matrix[i * n + j] += -2 / norm * (v[i] * image[j] + image[i] * v[j]) + 4 * inner / norm / norm * v[i] * v[j];
  }
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < i; ++j) matrix[j * n + i] = matrix[i * n + j];
  return matrix;
}

void products() {
  fmt::print("{}, one core: rows x depth x columns, billions of multiply-adds a second\n", isa_name());
  for (const auto& [rows, depth, cols] :
       std::vector<std::array<std::size_t, 3>>{{1024, 1024, 1024}, {256, 4096, 256}, {12, 4096, 127}}) {
    const auto a = normal(rows * depth, 1), b = normal(depth * cols, 2);
    std::vector<float> sums(rows * cols);
    const auto step = [](std::size_t x) { return static_cast<std::ptrdiff_t>(x); };
    const double count = static_cast<double>(rows * depth * cols) * 1e-9;
    double ours = 1e300, theirs = 1e300;  // alternating
    for (int run = 0; run < 9; ++run) {
      ours = std::min(ours, bench::best_of(1, [&] {
                        add_product({rows, depth, cols}, {a.data(), step(depth), 1}, {b.data(), step(cols), 1},
                                    {sums.data(), step(cols), 1});
                      }));
      theirs =
          std::min(theirs, bench::best_of(1, [&] {
                     cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, static_cast<int>(rows),
                                 static_cast<int>(cols), static_cast<int>(depth), 1, a.data(), static_cast<int>(depth),
                                 b.data(), static_cast<int>(cols), 1, sums.data(), static_cast<int>(cols));
                   }));
    }
    fmt::print("{:5} x {:5} x {:5}: {:6.1f}, OpenBLAS {:6.1f}, share {:.2f}\n", rows, depth, cols, count / ours,
               count / theirs, theirs / ours);
  }
}

void layer(std::size_t size) {
  constexpr std::size_t kBlock = 256;
  const auto s = rotated(size, 1, 1), f = rotated(kBlock, 1, 2);
  LayerSides sides;
  CurvatureFactor inputs;
  const double factor =
      bench::best_of(1, [&] { inputs = factor_curvature(s, size, 0.003, mean_diagonal(s, size), "bench"); });
  sides.inputs = &inputs;
  for (std::size_t row = 0; row < size; row += kBlock)
    sides.outputs.push_back(factor_curvature(f, kBlock, 0.2, mean_diagonal(f, kBlock), "bench"));
  const auto weights = normal(size * size, 3);
  const double count = static_cast<double>(size * size);
  fmt::print("factor of {} x {}: {:.2f} s, {:.1f} billion multiply-adds a second\n", size, size, factor,
             count * static_cast<double>(size) / 3 / factor * 1e-9);
  for (const unsigned states : {1U, 8U, 32U})
    for (const bool both : {false, true}) {
      LayerSides used = both ? sides : LayerSides();
      if (!both) used.col_curvature.assign(size, 1);
      CodedLayer coded;
      const float step = both ? 0.008F : 0.25F;
      const double seconds = bench::best_of(1, [&] {
        coded = code_layer({weights, size, size}, used, {.states = states, .step = step, .passes = 1});
      });
      EncodedRecord record;
      const double encode = bench::best_of(1, [&] { record = encode_trellis_record(coded.unit); });
      fmt::print("{:2} states, {}: {:6.1f} ns a weight and pass, record {:5.1f} ns, {:.3f} bits\n", states,
                 both ? "errors passed on both ways" : "no errors passed on      ", 1e9 * seconds / count,
                 1e9 * encode / count, 8.0 * static_cast<double>(record.bytes.size()) / count);
    }
}

double water_filled(const std::vector<double>& spectrum, double loss) {
  double low = 0, high = 10, bits = 0;
  const double n = static_cast<double>(spectrum.size());
  for (int step = 0; step < 100; ++step) {
    const double level = (low + high) / 2;
    double sum = 0;
    for (const double s : spectrum) sum += std::min(s, level) / n;
    (sum < loss ? low : high) = level;
  }
  for (const double s : spectrum) bits += s > low ? 0.5 * std::log2(s / low) / n : 0.0;
  return bits;
}

/// Bits beyond the bound; `stored` with all bytes of the record, else of the codes alone.
void gap(std::size_t rows, std::size_t cols, unsigned states, float step) {
  const auto s = rotated(cols, 1.5, 5);
  std::vector<double> spectrum(cols);
  for (std::size_t j = 0; j < cols; ++j) spectrum[j] = std::pow(static_cast<double>(j + 1), -1.5);
  const CurvatureFactor inputs = factor_curvature(s, cols, 1e-7, mean_diagonal(s, cols), "bench");
  const auto weights = normal(rows * cols, 9);
  LayerSides sides;
  sides.inputs = &inputs;
  const CodedLayer coded = code_layer({weights, rows, cols}, sides, {.states = states, .step = step});
  const EncodedRecord record = encode_trellis_record(coded.unit);
  const double count = static_cast<double>(weights.size());
  // The loss by its identity: squared steps times step^2 (tests/quant/matrix_test.cpp).
  const double loss = coded.squared_steps * double{step} * step / count, bound = water_filled(spectrum, loss);
  const double stored = 8.0 * static_cast<double>(record.bytes.size()) / count;
  const double codes = 8.0 * static_cast<double>(record.ledger.codes) / count;
  fmt::print("{} x {}, {:2} states: bound {:.3f}, codes {:.4f} beyond, stored {:.4f} beyond, squared steps {:.4f}\n",
             rows, cols, states, bound, codes - bound, stored - bound, coded.squared_steps / count);
}
}  // namespace

int main(int argc, char** argv) {
  set_thread_count(1);
  openblas_set_num_threads(1);
  if (argc > 1 && std::string(argv[1]) == "gap") {
    for (const unsigned states : {1U, 8U, 32U})
      for (const float step : {0.02F, 0.01F, 0.005F, 0.0025F}) gap(1024, 256, states, step);
    for (const float step : {0.008F, 0.004F, 0.002F}) gap(8192, 1024, 8, step);
    return 0;
  }
  products();
  layer(argc > 1 ? std::stoull(argv[1]) : 4096);
}
