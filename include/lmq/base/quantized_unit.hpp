#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lmq/base/dtype.hpp"

namespace lmq {

using Code = std::uint8_t;

enum class CodebookKind : std::uint8_t {
  table = 0,    ///< `levels` levels, ascending
  grid = 1,     ///< low and step: level k = low + float(k) * step, each operation rounded to float
  bases = 2,    ///< v_1 .. v_k >= 0, levels = 2^k: level of a code = (..(+-v_1 +- v_2)..) +- v_k, each sum rounded to
                ///< float, + v_j where bit k - j of the code is set. Levels need not ascend.
  centred = 3,  ///< one step >= 0: level k = (float(k) - float(levels - 1) / 2) * step, rounded to float once
  rank1 = 4,    ///< of a whole record (group 0, whole rows): a factor per row, one per column, then `levels` numbers:
                ///< weight = (row factor * column factor) * number of its code, each product rounded to float
  trellis = 5,  ///< of no QuantizedUnit: whole numbers of steps of rows and columns (lmq/base/trellis_unit.hpp)
};
/// How a codebook's numbers are stored.
enum class LevelType : std::uint8_t {
  f32 = 0,
  f16 = 1,  ///< IEEE half times one power of two for the whole record (so that range never limits precision)
};
/// Which coder the recipe allows; the cheaper by real price is taken where it allows more than one.
/// (planes: bit k - j of all codes, j = 1 .. k, one plane after another.)
enum class CoderChoice : std::uint8_t {
  cheapest = 0,
#define LMQ_CODER(name, number, whole_bits, coder) name = number,
#include "lmq/base/coders.inc"
#undef LMQ_CODER
};
/// Whether a coder, the only one that is allowed, gives every code the same whole number of bits.
[[nodiscard]] bool takes_whole_bits(CoderChoice coder) noexcept;

/// One unit of a quantized tensor, before coding and after decoding: codebooks and codes.
/// Weights lie row-major; a codebook serves `group` consecutive inputs of a row (the last group of a row may be
/// shorter), or the whole record when group == 0.
struct QuantizedUnit {
  std::uint16_t method = 0;   ///< registry id, for people; decoding does not look at it
  DType source = DType::f32;  ///< type of the tensor it was made from
  std::uint64_t count = 0;    ///< weights in the unit
  std::uint64_t cols = 0;     ///< row length; only used when group > 0, and count is then a multiple of it
  std::uint64_t group = 0;    ///< weights per codebook inside a row, 0: one codebook for the record
  CodebookKind kind = CodebookKind::table;
  LevelType level_type = LevelType::f32;
  std::uint32_t levels = 0;  ///< levels per codebook, 1..256; short codebooks repeat their last level
  std::vector<float> book;   ///< [codebooks][numbers_per_codebook]; of rank1 [rows + cols + levels]; every
                             ///< number is exactly representable in level_type (see round_levels)
  std::vector<Code> codes;   ///< [count], each < levels

  /// Number of codebooks: 1, or rows * ceil(cols / group).
  [[nodiscard]] std::uint64_t codebooks() const noexcept;
  /// Numbers in `book`.
  [[nodiscard]] std::uint64_t book_numbers() const noexcept;
};

/// Level k of a grid is low + float(k) * step, each operation rounded to float; -0 becomes +0.
inline void grid_levels(float low, float step, std::span<float> levels) noexcept {
  for (std::size_t k = 0; k < levels.size(); ++k) {
    const float rise = static_cast<float>(k) * step;
    levels[k] = low + rise + 0.0f;
  }
}

/// The levels that a unit's codebook stands for, [levels], by code; `book` < codebooks().
[[nodiscard]] std::vector<float> levels_of(const QuantizedUnit& unit, std::uint64_t book = 0);

/// Numbers that one codebook is stored as; rank1: its numbers apart from the factors.
[[nodiscard]] std::uint64_t numbers_per_codebook(CodebookKind kind, std::uint64_t levels) noexcept;
/// The value of every code, [levels], from the numbers of one codebook; of rank1 from its last `levels` numbers. -0
/// becomes +0.
void expand_levels(CodebookKind kind, std::span<const float> numbers, std::span<float> levels) noexcept;

/// Rounds a record's codebook numbers in place to what `type` can store. The power of two of LevelType::f16 follows
/// from the largest magnitude in `book`. Order is kept (ascending stays ascending, equal numbers may appear).
/// Idempotent.
void round_levels(std::span<float> book, LevelType type);

/// The same, but the least level of every codebook of `width` ascending levels is rounded down and the greatest (and
/// what equals it) up, so that what lay between two levels still does. Beyond 65504 * 2^112 there is no half: there, to
/// that.
void round_levels_covering(std::span<float> book, std::size_t width, LevelType type);

/// The p of LevelType::f16: the largest magnitude, rounded to 11 significant bits, lies in [2^(p + 15), 2^(p + 16));
/// never below -125, so that every half times 2^p is a float, and 0 for a book of zeros. Finite numbers only.
[[nodiscard]] int half_exponent(std::span<const float> book) noexcept;
/// Bits of the half nearest to level / 2^exponent (ties to even, at most 65504), -125 <= exponent <= 112.
[[nodiscard]] std::uint16_t to_scaled_half(float level, int exponent) noexcept;
/// half * 2^exponent, exact; infinity and NaN where the half is.
[[nodiscard]] float from_scaled_half(std::uint16_t half, int exponent) noexcept;
inline constexpr int kMinHalfExponent = -125, kMaxHalfExponent = 112;

}  // namespace lmq
