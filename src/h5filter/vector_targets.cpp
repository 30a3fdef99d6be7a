// The three functions that tell Highway's tables which instruction sets a machine has, in place of libhwy's: the plug-in is
// built from Highway's headers alone.
#include <hwy/targets.h>

#include <atomic>

#if HWY_ARCH_X86
#include <cpuid.h>
#endif

namespace hwy {
namespace {

std::atomic<std::int64_t> disabled{0};

#if HWY_ARCH_X86
bool has_f16c() noexcept {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

/// Each set with all that Highway's code for it may use (hwy/ops/set_macros-inl.h).
std::int64_t machine_targets() noexcept {
  std::int64_t found = 0;
  const bool ssse3 = __builtin_cpu_supports("ssse3") != 0;
  const bool sse4 = ssse3 && __builtin_cpu_supports("sse4.1") && __builtin_cpu_supports("sse4.2") &&
                    __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("aes");
  const bool avx2 = sse4 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") && has_f16c();
  const bool avx3 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
  if (ssse3) found |= HWY_SSSE3;
  if (sse4) found |= HWY_SSE4;
  if (avx2) found |= HWY_AVX2;
  if (avx3) found |= HWY_AVX3;
  return found;
}
#else
std::int64_t machine_targets() noexcept { return 0; }
#endif

}  // namespace

std::int64_t SupportedTargets() {
  static const std::int64_t machine = machine_targets();
  return ((machine | HWY_STATIC_TARGET) & ~disabled.load()) | HWY_STATIC_TARGET;
}

void DisableTargets(std::int64_t targets) {
  disabled.fetch_or(targets);
  GetChosenTarget().DeInit();
}

ChosenTarget& GetChosenTarget() {
  static ChosenTarget chosen;
  return chosen;
}

}  // namespace hwy
