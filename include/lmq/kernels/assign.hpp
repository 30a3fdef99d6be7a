#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lmq/base/dtype.hpp"
#include "lmq/base/quantized_unit.hpp"

namespace lmq {

/// The smallest float that is strictly nearer to `above` than to `below` in exact arithmetic (so a value in the middle
/// goes to the smaller level); +infinity when the two are equal. Finite, below <= above.
[[nodiscard]] float level_boundary(float below, float above) noexcept;

/// Boundaries between ascending levels (equal neighbours allowed), ascending: the nearest level of a value, the first
/// of equals, is the number of boundaries <= value. boundaries.size() + 1 == levels.size().
void level_boundaries(std::span<const float> levels, std::span<float> boundaries) noexcept;

/// Nearest level of every weight of one source type, for one codebook: -0 is +0, ties go to the smaller level. Whatever
/// way is taken (compare in the 16-bit domain, table of patterns, compare floats), the codes are the same.
class NearestLevel {
 public:
  /// levels  [1..256] finite, ascending, equal neighbours allowed
  /// type    of the weights (is_float)
  /// expected  weights that will be mapped: tables are made only where they pay
  void prepare(std::span<const float> levels, DType type, std::size_t expected);
  /// The same with given boundaries, ascending, equal ones allowed, 0..255 of them: the code of a weight is the number
  /// of boundaries <= it.
  void prepare_boundaries(std::span<const float> boundaries, DType type, std::size_t expected);
  /// Codes of codes.size() finite weights. Cost on one core, BF16: 0.2 ns per weight with 16 levels, 0.4 ns with 256.
  void assign(std::span<const std::byte> weights, std::span<Code> codes) const noexcept;
  /// The same through the plain loop.
  void assign_reference(std::span<const std::byte> weights, std::span<Code> codes) const noexcept;

 private:
  enum class Way : std::uint8_t { constant, compare16, table16, table8, compare32, coarse32, search32 };
  void choose_way(DType type, std::size_t expected);
  void prepare_compare16();
  void prepare_table16();
  void prepare_table8();
  void prepare_coarse32();
  void assign_floats(std::span<const float> weights, std::span<Code> codes) const noexcept;

  DType type_ = DType::f32;
  Way way_ = Way::constant;
  std::size_t count_ = 0;                 // boundaries
  std::array<float, 256> boundaries_{};   // ascending; coarse32: then +infinity
  std::array<std::int16_t, 256> keys_{};  // compare16: largest signed key of a value < boundary
  std::vector<Code> table_;               // table16: by pattern; table8: by pattern; coarse32: by the upper 16 bits
};

}  // namespace lmq
