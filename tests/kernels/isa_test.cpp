#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <string_view>

#include "lmq/kernels/binary_scan.hpp"
#include "lmq/kernels/level_scan.hpp"
#include "lmq/kernels/partition_scan.hpp"
#include "lmq/kernels/row_scan.hpp"
#include "lmq/kernels/sort_network.hpp"

using namespace lmq;

namespace {
/// Which of the sets this machine can run (baseline, AVX2, AVX-512) is the widest that LMQ_ISA allows.
std::size_t allowed(std::size_t runnable) {
  const char* text = std::getenv("LMQ_ISA");
  const std::string_view wanted = text != nullptr ? text : "";
  if (wanted == "baseline" || wanted == "SSE4" || wanted == "SSSE3" || wanted == "SSE2") return 0;
  return wanted == "AVX2" ? std::min<std::size_t>(runnable - 1, 1) : runnable - 1;
}

template <class Set>
std::size_t chosen(const Set& best, std::size_t (*list)(const Set**, std::size_t) noexcept, std::size_t& runnable) {
  std::array<const Set*, 3> sets{};
  runnable = list(sets.data(), sets.size());
  for (std::size_t i = 0; i < runnable; ++i)
    if (sets[i] == &best) return i;
  return runnable;
}
}  // namespace

TEST_CASE("isa: vector loops run on the widest set that LMQ_ISA allows, none on a wider one") {
  std::size_t runnable = 0;
  CHECK(chosen(partition_scans(), partition_scan_sets, runnable) == allowed(runnable));
  CHECK(chosen(row_scans(), row_scan_sets, runnable) == allowed(runnable));
  CHECK(chosen(binary_scans(), binary_scan_sets, runnable) == allowed(runnable));
  CHECK(chosen(sort_network(), sort_network_sets, runnable) == allowed(runnable));
  std::array<LevelScan, 3> scans{};
  runnable = level_scan_sets(scans.data(), scans.size());
  CHECK(level_scan() == scans[allowed(runnable)]);
}
