#pragma once
#include <cstdint>

namespace lmq::unaligned {

// Elements as they lie in a file: any address.
typedef std::uint8_t u8 __attribute__((may_alias));
typedef std::uint16_t u16 __attribute__((aligned(1), may_alias));
typedef std::uint32_t u32 __attribute__((aligned(1), may_alias));
typedef std::uint64_t u64 __attribute__((aligned(1), may_alias));
typedef float f32 __attribute__((aligned(1), may_alias));
typedef double f64 __attribute__((aligned(1), may_alias));

}  // namespace lmq::unaligned
