#pragma once
#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "feedback.hpp"
#include "grid_rows.hpp"
#include "lmq/base/math.hpp"
#include "lmq/base/pool.hpp"
#include "lmq/quant/quantizer.hpp"

namespace lmq {

/// Power of two by which values of this magnitude come near 1; 1 for 0.
[[nodiscard]] double near_one(float largest) noexcept;
[[nodiscard]] float largest_of(std::span<const float> values) noexcept;
void scale_by(std::span<float> values, double scale) noexcept;
/// Importance of a row as weights of errors: near 1, none below kMinWeight of the largest, all zero as all ones.
void normalize_weights(std::span<float> weights) noexcept;

/// How a Gram matrix is taken apart.
struct FeedbackUse {
  double damping = 0.003;  ///< a share of its mean diagonal (docs/methods/waterfill.md)
  ColumnOrder order = ColumnOrder::curvature;
  friend bool operator==(const FeedbackUse&, const FeedbackUse&) = default;
};

/// The factor of the Gram matrix a rank had last: a layer's windows come one after another.
struct KnownFactor {
  std::uint64_t key = 0;
  FeedbackUse use;
  FeedbackFactor factor;
  std::vector<float> gram;  ///< the matrix without numbers that are nothing beside its diagonal; empty: it has none
};
[[nodiscard]] Pool<KnownFactor>& known_factors();
/// The factor of the importance's Gram matrix, made anew where `known` is another. Errors: those of factor_curvature.
const KnownFactor& factor_of(const Importance& importance, std::size_t cols, const FeedbackUse& use,
                             KnownFactor& known);

/// What one worker keeps of a block.
struct RowBlock {
  std::vector<float> x, weights;
  std::vector<double> scale;  ///< [rows]: x was multiplied by
  GridRows rows;
};

/// A window of rows in blocks: as many rows each as the columns say.
struct RowBlocks {
  const RowWindow& window;
  std::uint64_t cols, group, rows, block;
  RowBlocks(const RowWindow& from, const QuantizedUnit& unit) noexcept
      : window(from), cols(unit.cols), group(unit.group), rows(unit.count / unit.cols), block(rows_of(unit.cols)) {}
  [[nodiscard]] static std::uint64_t rows_of(std::uint64_t cols) noexcept {
    constexpr std::uint64_t kWeights = std::uint64_t{1} << 18, kMinRows = 16, kMaxRows = 128;
    return std::clamp<std::uint64_t>(kWeights / std::max<std::uint64_t>(1, cols), kMinRows, kMaxRows);
  }
  [[nodiscard]] std::size_t count() const noexcept { return static_cast<std::size_t>(ceil_div(rows, block)); }
  [[nodiscard]] std::uint64_t first(std::size_t b) const noexcept { return b * block; }
  [[nodiscard]] std::size_t size(std::size_t b) const noexcept {
    return static_cast<std::size_t>(std::min(block, rows - b * block));
  }
  [[nodiscard]] bool by_gram() const noexcept { return !window.importance.gram.empty(); }
  /// The rows of a block, each near 1, and what its errors weigh: by the Gram matrix with a factor, else by the
  /// diagonal.
  void load(std::size_t b, GridShape shape, const KnownFactor* known, RowBlock& mine) const;
};

/// Losses of a block's rows in the units of the window, added up in their order.
[[nodiscard]] double unscaled_loss(const RowBlock& mine) noexcept;

}  // namespace lmq
