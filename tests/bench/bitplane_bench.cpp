// Products of a 4096 x 4096 matrix with a vector: signs against floats by OpenBLAS, one thread.
#include <cblas.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <vector>

#include "lmq/kernels/bitplane.hpp"
#include "lmq/kernels/isa.hpp"

extern "C" void openblas_set_num_threads(int);

namespace {
template <class Body>
double best_ms(const Body& body) {
  double best = 1e9;
  for (int run = 0; run < 15; ++run) {
    const auto begin = std::chrono::steady_clock::now();
    body();
    best = std::min(best, std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
  }
  return best;
}
}  // namespace

int main() {
  constexpr std::size_t kSize = 4096, kMax = 4, kWords = lmq::plane_words(kSize);
  openblas_set_num_threads(1);
  std::mt19937_64 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> dense(kSize * kSize), x(kSize), y(kSize), scale(kMax * kSize, 0.5F);
  for (float& value : dense) value = normal(random);
  for (float& value : x) value = normal(random);
  std::vector<std::uint64_t> signs(kMax * kSize * kWords), activation(kMax * kWords);
  for (auto& word : signs) word = random();
  for (auto& word : activation) word = random();
  const double floats = best_ms([&] {
    cblas_sgemv(CblasRowMajor, CblasNoTrans, kSize, kSize, 1, dense.data(), kSize, x.data(), 1, 0, y.data(), 1);
  });
  fmt::print("{}: OpenBLAS sgemv {:.3f} ms, {:.1f} GB/s\n", lmq::isa_name(), floats,
             double(dense.size() * sizeof(float)) / floats * 1e-6);
  for (std::size_t planes = 1; planes <= kMax; ++planes) {
    const lmq::BitPlaneMatrix w{kSize, kSize, planes, signs, scale};
    const double ms = best_ms([&] { lmq::bitplane_times(w, x, y); });
    fmt::print("{} planes, float vector: {:.3f} ms, {:.1f} times faster, {:.1f} GB/s of signs\n", planes, ms,
               floats / ms, double(planes * kSize * kWords * 8) / ms * 1e-6);
    for (std::size_t bits = 1; bits <= 2; ++bits) {
      const double xnor = best_ms([&] { lmq::bitplane_times(w, {kSize, bits, activation, scale}, y); });
      fmt::print("{} planes, vector of {} planes: {:.3f} ms, {:.1f} times faster\n", planes, bits, xnor, floats / xnor);
    }
  }
}
