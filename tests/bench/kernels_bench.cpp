// Nanoseconds per weight of the hot loops and of whole units, beside a plain copy. User CPU time, best of several, one
// thread; weights are normal (sigma .02), one unit of 4 Mi weights.
#include <fmt/core.h>
#include <time.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "lmq/base/parallel.hpp"
#include "lmq/kernels/assign.hpp"
#include "lmq/kernels/error.hpp"
#include "lmq/kernels/histogram.hpp"
#include "lmq/kernels/isa.hpp"
#include "lmq/kernels/widen.hpp"
#include "lmq/quant/unit.hpp"
#include "lmq/quant/value_histogram.hpp"

namespace {

using lmq::Code;
using lmq::DType;

constexpr std::size_t kCount = std::size_t{1} << 22;
constexpr std::uint64_t kCols = 4096;
constexpr int kRuns = 15;

double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

template <class Body>
void report(const std::string& what, Body&& body, int runs = kRuns) {
  double best = 1e300;
  for (int run = 0; run < runs; ++run) {
    const double begin = cpu_seconds();
    body();
    best = std::min(best, cpu_seconds() - begin);
  }
  fmt::print("{:<44} {:8.3f} ns per weight\n", what, best * 1e9 / static_cast<double>(kCount));
}

struct Weights {
  DType type;
  std::vector<std::byte> bytes;
  [[nodiscard]] lmq::TensorView view() const { return {type, bytes, kCount}; }
  [[nodiscard]] std::string name() const { return std::string(lmq::name(type)); }
};

Weights normal_weights(DType type) {
  std::mt19937_64 random(1);
  std::normal_distribution<float> normal(0, 0.02F);
  std::vector<float> values(kCount);
  for (float& value : values) value = normal(random);
  Weights made{type, std::vector<std::byte>(kCount * lmq::bits(type) / 8)};
  lmq::narrow_to(type, values, made.bytes);
  return made;
}

lmq::Codebook grid_of(std::size_t levels) {
  return lmq::Codebook::grid(-0.08F, 0.16F / static_cast<float>(levels - 1), levels);
}

void bench_kernels(const Weights& weights) {
  std::vector<Code> codes(kCount);
  std::vector<float> floats(kCount);
  report(weights.name() + " copy of the weights",
         [&] { std::memcpy(floats.data(), weights.bytes.data(), weights.bytes.size()); });
  report(weights.name() + " widen", [&] { lmq::widen(weights.type, weights.bytes, floats); });
  std::vector<std::byte> narrowed(weights.bytes.size());
  report(weights.name() + " narrow_to", [&] { lmq::narrow_to(weights.type, floats, narrowed); });
  report(weights.name() + " find_nonfinite", [&] { (void)lmq::find_nonfinite(weights.type, weights.bytes); });
  for (const std::size_t levels : {4, 16, 64, 256}) {
    const lmq::Codebook book = grid_of(levels);
    lmq::NearestLevel nearest;
    nearest.prepare(book.levels(), weights.type, kCount);
    report(fmt::format("{} assign, {} levels", weights.name(), levels), [&] { nearest.assign(weights.bytes, codes); });
    const lmq::LevelTable table(book.levels());
    const std::size_t size = lmq::bits(weights.type) / 8;
    report(fmt::format("{} error, {} levels", weights.name(), levels), [&] {
      lmq::ErrorSums sums;
      for (std::size_t at = 0; at < kCount; at += lmq::kErrorBlock)
        sums.append(lmq::error_of_codes(weights.type,
                                        std::span(weights.bytes).subspan(at * size, lmq::kErrorBlock * size),
                                        std::span(codes).subspan(at, lmq::kErrorBlock), table, {}));
      if (sums.squared < 0) fmt::print("never\n");
    });
  }
}

void bench_histograms(const Weights& bf16, const Weights& f32) {
  lmq::Histogram16 histogram;
  std::vector<std::uint64_t> totals(65536);
  report("BF16 histogram", [&] { histogram.add(bf16.bytes.data(), kCount); });
  report("BF16 histogram and drain", [&] { histogram.add(bf16.bytes.data(), kCount), histogram.drain(totals); });
  const std::vector<std::byte> equal(kCount * 2, std::byte{0x3F});
  report("BF16 histogram, all equal", [&] { histogram.add(equal.data(), kCount); });
  std::vector<std::uint64_t> counts(256);
  report("8-bit histogram", [&] { lmq::add_histogram8(bf16.bytes.data(), kCount, counts); });
  lmq::MomentHistogram moments;
  report("F32 moments", [&] { moments.add(f32.bytes.data(), kCount); });
}

void bench_histogram(const Weights& weights, const lmq::Importance& columns) {
  report(weights.name() + " histogram", [&] { (void)lmq::ValueHistogram::of(weights.view(), {}, {}); });
  report(
      weights.name() + " histogram, weighted", [&] { (void)lmq::ValueHistogram::of(weights.view(), columns, {}); }, 5);
  if (lmq::bits(weights.type) <= 16) return;
  const lmq::Group group = lmq::ValueHistogram::of(weights.view(), {}, {}).group(1);
  std::vector<lmq::KeyRange> ranges;
  for (std::size_t bin = 100; bin < group.size(); bin += group.size() / 16)
    ranges.push_back({lmq::ordered_key(group.low[bin]), lmq::ordered_key(group.high[bin]), 2});
  report(weights.name() + " histogram of 16 ranges",
         [&] { (void)lmq::ValueHistogram::of(weights.view(), {}, ranges); });
}

void bench_units(const Weights& weights, const lmq::Importance& columns) {
  lmq::QuantizedUnit recycle;
  lmq::QuantSpec spec;
  spec.method = lmq::find_quantizer("kmeans").id;
  for (const std::size_t levels : {16, 256}) {
    spec.options.levels = levels;
    const lmq::Codebook book = grid_of(levels);
    const auto run = [&](const lmq::Importance& importance) {
      recycle =
          std::move(lmq::quantize_unit({weights.view(), importance, kCols}, spec, &book, std::move(recycle)).unit);
    };
    report(fmt::format("{} unit, shared codebook of {}", weights.name(), levels), [&] { run({}); });
    report(fmt::format("{} the same with importance", weights.name()), [&] { run(columns); });
  }
  std::vector<float> decoded(kCount);
  report(weights.name() + " measure_error", [&] { (void)lmq::measure_error(weights.view(), decoded, {}); });
  report(weights.name() + " first_nonfinite", [&] { (void)lmq::first_nonfinite(weights.view()); });
  spec.options.levels = 16;
  for (const std::string_view method : {"uniform", "kmeans"})
    for (const std::uint64_t group : {kCols, std::uint64_t{128}}) {
      spec.method = lmq::find_quantizer(method).id;
      spec.granularity = group == kCols ? lmq::Granularity::row : lmq::Granularity::group;
      spec.group = group;
      report(
          fmt::format("{} unit, {} 16 levels for each {}", weights.name(), method, group),
          [&] {
            recycle =
                std::move(lmq::quantize_unit({weights.view(), {}, kCols}, spec, nullptr, std::move(recycle)).unit);
          },
          2);
    }
}

}  // namespace

int main() {
  lmq::set_thread_count(1);
  fmt::print("instruction set {}, {} weights\n", lmq::isa_name(), kCount);
  const Weights bf16 = normal_weights(DType::bf16), f32 = normal_weights(DType::f32);
  const std::vector<float> importance(kCols, 0.5F);
  const lmq::Importance columns{lmq::Importance::Kind::columns, importance, 0, lmq::importance_quantum(0.5, kCount)};
  bench_histograms(bf16, f32);
  for (const Weights* weights : {&bf16, &f32}) {
    bench_kernels(*weights);
    bench_histogram(*weights, columns);
    bench_units(*weights, columns);
  }
  for (const DType type : {DType::f16, DType::f8_e4m3}) bench_kernels(normal_weights(type));
}
