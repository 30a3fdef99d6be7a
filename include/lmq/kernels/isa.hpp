#pragma once
#include <string>

namespace lmq {

/// True when LMQ_ISA=baseline asks for the plain reference loops. The variable is read at the first call; the name of
/// an instruction set (LMQ_ISA=AVX2) forbids better ones, so every dispatching function asks this first.
[[nodiscard]] bool baseline_forced() noexcept;
/// The instruction set the vector twins run on, for example "AVX3", "AVX2", "NEON", "baseline".
[[nodiscard]] std::string isa_name();

}  // namespace lmq
