#include "lmq/kernels/isa.hpp"

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "vector_sets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "isa.cpp"
#include "targets.hpp"
// foreach_target must come before highway.h
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace lmq::HWY_NAMESPACE {
const char* compiled_target() { return hwy::TargetName(HWY_TARGET); }
}  // namespace lmq::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lmq {
namespace {
HWY_EXPORT(compiled_target);

/// Reads LMQ_ISA: "baseline", or the name of an instruction set above which none is used ("AVX2" on a machine with
/// AVX3). A name that is none of this build's changes nothing.
bool read_isa() noexcept {
  const char* text = std::getenv("LMQ_ISA");
  const std::string_view wanted = text != nullptr ? text : "";
  if (wanted == "baseline") return true;
  for (int bit = 0; bit < 63; ++bit) {  // better sets are lower bits
    const std::int64_t target = std::int64_t{1} << bit;
    if ((HWY_TARGETS & target) != 0 && wanted == hwy::TargetName(target)) hwy::DisableTargets(target - 1);
  }
  return false;
}
}  // namespace

bool baseline_forced() noexcept {
  static const bool forced = read_isa();
  return forced;
}

bool may_run_avx2() noexcept { return !baseline_forced() && (hwy::SupportedTargets() & HWY_AVX2) != 0; }
bool may_run_avx512() noexcept { return !baseline_forced() && (hwy::SupportedTargets() & HWY_AVX3) != 0; }

std::string isa_name() { return baseline_forced() ? "baseline" : HWY_DYNAMIC_DISPATCH(compiled_target)(); }

}  // namespace lmq
#endif
