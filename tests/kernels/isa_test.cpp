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

/// True when `best` is the widest of the machine's sets that LMQ_ISA allows.
template <class Set>
bool is_allowed(const Set& best, std::size_t (*list)(const Set**, std::size_t) noexcept) {
  std::array<const Set*, 3> sets{};
  const std::size_t runnable = list(sets.data(), sets.size());
  return sets[allowed(runnable)] == &best;
}
}  // namespace

TEST_CASE("isa: vector loops run on the widest set that LMQ_ISA allows, none on a wider one") {
  CHECK(is_allowed(partition_scans(), partition_scan_sets));
  CHECK(is_allowed(row_scans(), row_scan_sets));
  CHECK(is_allowed(binary_scans(), binary_scan_sets));
  CHECK(is_allowed(sort_network(), sort_network_sets));
  std::array<LevelScan, 3> scans{};
  const std::size_t runnable = level_scan_sets(scans.data(), scans.size());
  CHECK(level_scan() == scans[allowed(runnable)]);
}
