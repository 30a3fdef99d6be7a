#include "row_blocks.hpp"

#include <algorithm>
#include <cmath>

#include "core/steps.hpp"
#include "core/unit_errors.hpp"
#include "lmq/kernels/widen.hpp"
#include "lmq/quant/group.hpp"

namespace lmq {

double near_one(float largest) noexcept { return largest > 0 ? std::ldexp(1.0, -std::ilogb(largest)) : 1.0; }

float largest_of(std::span<const float> values) noexcept {
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::fabs(value));
  return largest;
}

void scale_by(std::span<float> values, double scale) noexcept {
  for (float& value : values) value = static_cast<float>(double{value} * scale);
}

void normalize_weights(std::span<float> weights) noexcept {
  const float largest = largest_of(weights);
  if (!(largest > 0)) {
    std::ranges::fill(weights, 1.0F);
    return;
  }
  scale_by(weights, near_one(largest));
  const auto least = static_cast<float>(double{largest_of(weights)} * kMinWeight);
  for (float& weight : weights) weight = std::max(weight, least);
}

namespace {
/// A copy with 0 for numbers so small that no sum with the diagonal's sees them, but whose products are no normal
/// floats and take tens of times longer (.9^|i - j| at 2048 columns: 3.3 times the whole). Empty: there are none.
std::vector<float> without_nothings(std::span<const float> gram, std::size_t cols) {
  double mean = 0;
  for (std::size_t i = 0; i < cols; ++i) mean += double{gram[i * cols + i]} / static_cast<double>(cols);
  const double least = mean * kNothing;
  const auto is_nothing = [least](float value) { return value != 0 && std::fabs(double{value}) < least; };
  if (std::ranges::none_of(gram, is_nothing)) return {};
  std::vector<float> kept(gram.begin(), gram.end());
  std::ranges::replace_if(kept, is_nothing, 0.0F);
  return kept;
}
}  // namespace

Pool<KnownFactor>& known_factors() {
  static Pool<KnownFactor> known;
  return known;
}

const KnownFactor& factor_of(const Importance& importance, std::size_t cols, const FeedbackUse& use,
                             KnownFactor& known) {
  if (importance.gram_key != 0 && importance.gram_key == known.key && known.factor.order.size() == cols &&
      known.use == use)
    return known;
  known = {};  // its memory first
  known.factor = feedback_factor(importance.gram, cols, use.damping, use.order);
  known.gram = without_nothings(importance.gram, cols);
  known.key = importance.gram_key, known.use = use;
  return known;
}

void RowBlocks::load(std::size_t b, GridShape shape, const KnownFactor* known, RowBlock& mine) const {
  shape.rows = size(b);
  const std::size_t n = shape.weights(), width = shape.cols;
  mine.x.resize(n), mine.scale.resize(shape.rows);
  widen(window.view.dtype, bytes_of(window.view, first(b) * cols, n), mine.x);
  for (std::size_t r = 0; r < shape.rows; ++r) {
    const auto row = std::span(mine.x).subspan(r * width, width);
    mine.scale[r] = near_one(largest_of(row));
    scale_by(row, mine.scale[r]);
  }
  RowCurvature curvature;
  mine.weights.clear();
  if (known != nullptr) {
    curvature = {known->gram.empty() ? window.importance.gram : known->gram, known->factor.damping, {}};
  } else if (window.importance.kind != Importance::Kind::none) {
    mine.weights.resize(n);
    importance_at(window.importance, first(b) * cols, mine.weights);
    for (std::size_t r = 0; r < shape.rows; ++r) normalize_weights(std::span(mine.weights).subspan(r * width, width));
    curvature.weights = mine.weights;
  }
  mine.rows.prepare(shape, mine.x, curvature);
}

double unscaled_loss(const RowBlock& mine) noexcept {
  double sum = 0;
  for (std::size_t r = 0; r < mine.rows.shape.rows; ++r) sum += mine.rows.loss[r] / (mine.scale[r] * mine.scale[r]);
  return sum;
}

}  // namespace lmq
