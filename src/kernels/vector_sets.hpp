#pragma once
#include <cstddef>
#include <cstdint>

// Loops written once with the compiler's vectors and compiled for several instruction sets. `LMQ_INLINE` bodies take
// the instruction set of the function they end up in.
#define LMQ_INLINE inline __attribute__((always_inline))
#define LMQ_TARGET_BASELINE
#if defined(__x86_64__)
#define LMQ_TARGET_AVX2 __attribute__((target("avx2")))
#define LMQ_TARGET_AVX512 __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,prefer-vector-width=512")))
#endif

namespace lmq {

/// Eight lanes on every instruction set: what is computed lane by lane has the same bits.
inline constexpr std::size_t kLanes = 8;
using Doubles = double __attribute__((vector_size(kLanes * sizeof(double))));
using LooseDoubles = double __attribute__((vector_size(kLanes * sizeof(double)), aligned(sizeof(double)), may_alias));
using Longs = std::int64_t __attribute__((vector_size(kLanes * sizeof(std::int64_t))));

#if defined(__x86_64__)
[[nodiscard]] inline bool machine_has_avx2() noexcept { return __builtin_cpu_supports("avx2"); }
[[nodiscard]] inline bool machine_has_avx512() noexcept {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
}
#else
[[nodiscard]] inline bool machine_has_avx2() noexcept { return false; }
[[nodiscard]] inline bool machine_has_avx512() noexcept { return false; }
#endif

/// True when loops compiled for AVX2 (AVX-512 F, DQ, VL, BW) may run: the machine has it and LMQ_ISA does not forbid it
/// (isa.cpp).
[[nodiscard]] bool may_run_avx2() noexcept;
[[nodiscard]] bool may_run_avx512() noexcept;

/// The tables of loops this machine can run, the plainest first; a null one was not compiled.
template <class Set>
struct VectorSets {
  const Set *baseline, *avx2 = nullptr, *avx512 = nullptr;
  /// Writes as many as there is room for; returns how many.
  std::size_t list(const Set** sets, std::size_t room) const noexcept {
    std::size_t count = 0;
    const auto add = [&](const Set* set, bool runs) {
      if (set != nullptr && runs && count < room) sets[count++] = set;
    };
    add(baseline, true);
    add(avx2, machine_has_avx2());
    add(avx512, machine_has_avx512());
    return count;
  }
  /// The widest that LMQ_ISA allows (isa.hpp).
  [[nodiscard]] const Set& best() const noexcept {
    if (avx512 != nullptr && may_run_avx512()) return *avx512;
    return avx2 != nullptr && may_run_avx2() ? *avx2 : *baseline;
  }
};

}  // namespace lmq
