#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "lmq/base/quantized_unit.hpp"

namespace lmq {

/// Which signs a weight gets under bases v_1 .. v_k.
enum class SignRule : std::uint8_t {
  nearest = 0,  ///< those of the nearest sum, the smaller of two; 0 counts as positive, as in the paper
  greedy = 1,   ///< s_j = sign(weight - v_1 s_1 - .. - v_(j-1) s_(j-1)), sign(0) = +
};

/// A codebook of kind `bases` or `centred` as decisions on a line: a weight lies in interval i when i cuts are <= it,
/// and gets codes[i]. Of codes with equal levels the one with the most positive signs is used (all + when all bases are
/// 0).
struct SignCode {
  std::array<float, 256> levels;  ///< [level_count] by code
  std::array<float, 255> cuts;    ///< [intervals - 1] strictly ascending
  std::array<Code, 256> codes;    ///< [intervals]
  std::size_t level_count = 0, intervals = 0;
  bool in_order = true;  ///< codes[i] == i

  /// numbers: bases >= 0, or one step >= 0; finite, as they are stored. levels: 2^k, or any. Cost: about 2^k steps
  /// where sums ascend with their codes (k <= 2 with descending bases, or each base above the sum of those after it).
  SignCode(CodebookKind kind, std::span<const float> numbers, std::size_t levels, SignRule rule);

 private:
  void decide_nearest(CodebookKind kind);
  void decide_greedy(std::span<const float> bases);
};

}  // namespace lmq
