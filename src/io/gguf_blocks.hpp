#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace lmq {

/// A type of blocks of GGUF: so many elements in so many bytes.
struct BlockType {
  std::uint32_t id;
  std::string_view name;
  std::uint32_t elements, bytes;
  /// floats[blocks * elements] from in[blocks * bytes]; nullptr: the type is known and not decoded. Each product and
  /// each difference is rounded to float, as ggml's reference and the gguf package of Python do.
  void (*decode)(const std::uint8_t* in, std::size_t blocks, float* floats) noexcept;
};

/// The type of that number, or nullptr.
[[nodiscard]] const BlockType* block_type(std::uint32_t id) noexcept;
[[nodiscard]] std::span<const BlockType> block_types() noexcept;

/// The 16 values that a code of IQ4_NL and IQ4_XS stands for, times the block's scale.
inline constexpr std::int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                               1,    13,   25,  38,  53,  69,  89,  113};

}  // namespace lmq
