// Sparse least squares: time of the solvers on histograms of BF16 weights and on the most distinct values that type
// has. User CPU time, best of several.
#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "bench_time.hpp"
#include "methods/sparse/sls_cluster.hpp"
#include "methods/sparse/sls_l0.hpp"
#include "methods/sparse/sls_l1.hpp"
#include "methods/sparse/sls_l1l2.hpp"

namespace {

struct Line {
  std::vector<double> u, a;
};

float value_of(std::uint32_t pattern) { return std::bit_cast<float>(pattern << 16); }

/// Distinct BF16 values of `count(pattern)` > 0, ascending.
template <class Count>
Line histogram(const Count& count) {
  Line line;
  const auto add = [&](std::uint32_t pattern) {
    if (const double n = count(pattern); n > 0) line.u.push_back(value_of(pattern) + 0.0f), line.a.push_back(n);
  };
  for (std::uint32_t p = 0xFF7F; p > 0x8000; --p) add(p);
  for (std::uint32_t p = 0; p < 0x7F80; ++p) add(p);
  return line;
}

void lines(const char* name, const Line& line) {
  const lmq::SparseData data{line.u, line.a};
  lmq::SparseL1 l1;
  lmq::SparseL1L2 l1l2;
  lmq::SparseL0 l0;
  lmq::SeededLloyd lloyd;
  const double most = lmq::SparseL1::lambda_max(data);
  fmt::print("{}: {} distinct values\n", name, line.u.size());
  const auto row = [](const std::string& what, double seconds) {
    fmt::print("  {:44} {:10.3f} ms\n", what, seconds * 1e3);
  };
  row("l1, one lambda (pooling)", bench::best_of(9, [&] { (void)l1.solve(data, 1e-3 * most); }));
  row("l1 path, every number of levels", bench::best_of(9, [&] { (void)l1.path(data, line.u.size()); }));
  row("l1 path, up to 256 levels", bench::best_of(9, [&] { (void)l1.path(data, 256); }));
  row("l1 path, up to 16 levels", bench::best_of(9, [&] { (void)l1.path(data, 16); }));
  row("l1 + l2, one lambda (Newton)", bench::best_of(5, [&] { (void)l1l2.solve(data, 1e-3 * most, 1e-3 * most); }));
  row("l1 + l2, 16 levels", bench::best_of(3, [&] { (void)l1l2.lambda_for(data, 1e-3 * most, 16); }));
  row("l0, 16 levels", bench::best_of(5, [&] { (void)l0.solve(data, 16, lmq::ZeroLevel::off); }));
  row("l0, 16 levels, one at 0", bench::best_of(5, [&] { (void)l0.solve(data, 16, lmq::ZeroLevel::exact); }));
  row("seeded Lloyd, 16 levels", bench::best_of(5, [&] { (void)lloyd.solve(data, 16, 0, 1000, 1); }));
}

}  // namespace

int main() {
  std::vector<double> count(65536);
  std::mt19937_64 random(3);
  std::normal_distribution<double> normal;
  for (std::size_t i = 0; i < std::size_t{1} << 24; ++i) {
    const auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(0.02 * normal(random)));
    count[(bits + 0x7FFF + (bits >> 16 & 1)) >> 16] += 1;
  }
  lines("BF16, 2^24 normal weights", histogram([&](std::uint32_t p) { return count[p]; }));
  std::vector<double> any(65536);
  for (double& n : any) n = 1 + static_cast<double>(random() % 1000);
  lines("every finite BF16 value", histogram([&](std::uint32_t p) { return any[p]; }));
}
