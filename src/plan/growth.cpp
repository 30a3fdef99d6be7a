#include "growth.hpp"

#include <algorithm>
#include <bit>

#include "lmq/base/math.hpp"
#include "lmq/quant/quantizer.hpp"

namespace lmq {
namespace {

constexpr std::uint64_t kRecordFrame = 48;  // header and checksum
// Coder tables and states, and bits of a table for each level.
constexpr std::uint64_t kTableBytes = 9, kTableLevelBits = 10;

}  // namespace

std::uint64_t least_quantized_bytes(const QuantSpec& spec, std::uint64_t rows, std::uint64_t cols) {
  const QuantizerEntry* const entry = find_quantizer(spec.method);
  if (entry == nullptr || rows == 0 || cols == 0) return 0;
  const auto quantizer = entry->make(spec.options);
  const Traits& traits = quantizer->traits();
  if (traits.sees == Sees::rows || traits.sees == Sees::layer) return 0;
  std::uint64_t books = 1, weights = rows * cols;  // codebooks, and weights that share one
  if (spec.granularity == Granularity::model) books = 0;
  if (spec.granularity == Granularity::row) books = rows, weights = cols;
  if (spec.granularity == Granularity::group)
    books = rows * ceil_div(cols, spec.group), weights = std::min(cols, spec.group);
  const bool chooses = spec.budgeted || entry->at_slope != nullptr;
  const std::uint64_t levels = std::min<std::uint64_t>(chooses ? 2 : spec.options.levels, weights);
  std::uint64_t numbers = traits.numbered.numbers;
  if (numbers == 0) numbers = traits.grid ? 2 : levels;
  // Codes of as many equal bits as fit into the levels. Entropy coding takes a quarter off those of equal steps and of
  // levels that are still to be chosen; of optimal levels, whose cells hold nearly as many weights, .3 bits (of a
  // Gaussian) to .6 (of a Laplacian), and it needs tables.
  const std::uint64_t fixed = (static_cast<std::uint64_t>(std::bit_width(levels)) - (levels > 0)) * rows * cols / 8;
  const bool equal_steps = chooses || traits.grid;
  const std::uint64_t coded =
      equal_steps ? fixed / 4 * 3 : fixed / 16 * 15 + kTableBytes + levels * kTableLevelBits / 8;
  return kRecordFrame + books * numbers * (spec.level_type == LevelType::f16 ? 2 : 4) + std::min(fixed, coded);
}

}  // namespace lmq
