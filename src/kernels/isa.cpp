#include "lmq/kernels/isa.hpp"

#include <cstdlib>
#include <string_view>

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
HWY_EXPORT(compiled_target);

bool baseline_forced() noexcept {
  static const bool forced = [] {
    const char* isa = std::getenv("LMQ_ISA");
    return isa != nullptr && std::string_view(isa) == "baseline";
  }();
  return forced;
}

std::string isa_name() { return baseline_forced() ? "baseline" : HWY_DYNAMIC_DISPATCH(compiled_target)(); }

}  // namespace lmq
#endif
