#pragma once
#include <cstdint>

#include "lmq/base/dtype.hpp"

namespace lmq {

/// A float type of up to 16 bits: sign, exponent field, mantissa. Field e > 0 means 2^(e - bias) * 1.m, field 0 means
/// 2^(1 - bias) * 0.m. What the top patterns mean differs by flavour.
struct SmallFloat {
  int mantissa;  ///< bits
  int bias;
  std::uint16_t sign;      ///< the sign's bit
  std::uint16_t largest;   ///< pattern of the largest finite magnitude
  std::uint16_t infinity;  ///< pattern of +infinity; == largest where the type has none
  std::uint16_t nan;       ///< a quiet NaN
  bool unsigned_zero;      ///< no -0; the pattern `sign` is the only NaN
};

inline constexpr SmallFloat kBf16{7, 127, 0x8000, 0x7F7F, 0x7F80, 0x7FC0, false};
inline constexpr SmallFloat kF16{10, 15, 0x8000, 0x7BFF, 0x7C00, 0x7E00, false};
inline constexpr SmallFloat kF8E4M3{3, 7, 0x80, 0x7E, 0x7E, 0x7F, false};
inline constexpr SmallFloat kF8E5M2{2, 15, 0x80, 0x7B, 0x7C, 0x7E, false};
inline constexpr SmallFloat kF8E4M3Fnuz{3, 8, 0x80, 0x7F, 0x7F, 0x80, true};
inline constexpr SmallFloat kF8E5M2Fnuz{2, 16, 0x80, 0x7F, 0x7F, 0x80, true};

constexpr const SmallFloat* small_float(DType type) noexcept {
  switch (type) {
    case DType::bf16:
      return &kBf16;
    case DType::f16:
      return &kF16;
    case DType::f8_e4m3:
      return &kF8E4M3;
    case DType::f8_e5m2:
      return &kF8E5M2;
    case DType::f8_e4m3fnuz:
      return &kF8E4M3Fnuz;
    case DType::f8_e5m2fnuz:
      return &kF8E5M2Fnuz;
    default:
      return nullptr;
  }
}

}  // namespace lmq
