#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace lmq {

/// A type of GGUF that is written: plain values (elements 1) or blocks.
struct GgufType {
  std::uint32_t id;
  std::string_view name;  ///< as users write it: "q4_0"
  std::uint32_t elements, bytes;
  std::uint32_t file_type;  ///< what `general.file_type` says of a file mostly of it
};
/// The types that are written; blocks from the smallest on, then plain ones.
[[nodiscard]] std::span<const GgufType> gguf_types() noexcept;
/// nullptr when none has that name.
[[nodiscard]] const GgufType* find_gguf_type(std::string_view name) noexcept;

/// The block whose decoded values are least squares away from `values`, among all scales that a half can hold for which
/// the largest value lies near the end of the type's range, and all codes: for one scale (Q4_0, IQ4_NL, TQ2_0, Q8_0) by
/// walking over all scales at which a code changes; for Q4_1, by alternating codes and both scales from 24 starts.
/// Plain types round to nearest even. values finite, values.size() == type.elements; out.size() == type.bytes.
/// Returns the squared error. Same bits everywhere: doubles in a fixed order. Cost: about 0.2 us a value.
/// Source: the one-dimensional problem of scaled integer rounding, error Sxx - Sxq^2 / Sqq between two changes.
double encode_block(const GgufType& type, std::span<const float> values, std::span<std::byte> out) noexcept;

/// The block that decodes to `values` exactly, value by value, into `out`; false when there is none. Cost: about 1 us
/// where there is none.
[[nodiscard]] bool encode_block_exactly(const GgufType& type, std::span<const float> values,
                                        std::span<std::byte> out) noexcept;

}  // namespace lmq
