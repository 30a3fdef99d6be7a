#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace lmq {

/// Element types of checkpoints; the names are those of safetensors. Values are written to files: never renumbered.
enum class DType : std::uint8_t {
  boolean = 0,
  u8 = 1,
  i8 = 2,
  i16 = 3,
  u16 = 4,
  i32 = 5,
  u32 = 6,
  i64 = 7,
  u64 = 8,
  f16 = 16,
  bf16 = 17,
  f32 = 18,
  f64 = 19,
  c64 = 20,
  f8_e4m3 = 32,
  f8_e5m2 = 33,
  f8_e8m0 = 34,
  f8_e4m3fnuz = 35,
  f8_e5m2fnuz = 36,
  f4 = 48,
  f6_e2m3 = 49,
  f6_e3m2 = 50,
};

/// Bits of one element (4, 6, 8, 16, 32 or 64).
[[nodiscard]] std::size_t bits(DType type) noexcept;
/// safetensors' name, for example "BF16".
[[nodiscard]] std::string_view name(DType type) noexcept;
/// The type of that name, or nothing.
[[nodiscard]] std::optional<DType> parse_dtype(std::string_view name) noexcept;
/// The type whose number on disk is `id`, or nothing.
[[nodiscard]] std::optional<DType> dtype_from_id(std::uint8_t id) noexcept;
/// True for real budgeted-point types that can be widened to float and quantized:
/// F64, F32, F16, BF16 and the four F8 types with a mantissa (not F8_E8M0, F6, F4, C64).
[[nodiscard]] bool is_float(DType type) noexcept;

}  // namespace lmq
