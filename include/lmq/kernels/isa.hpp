#pragma once
#include <string>

namespace lmq {

/// True when LMQ_ISA=baseline asks for the plain reference loops (read once).
[[nodiscard]] bool baseline_forced() noexcept;
/// The instruction set the vector twins run on, for example "AVX3", "AVX2", "NEON", "baseline".
[[nodiscard]] std::string isa_name();

}  // namespace lmq
