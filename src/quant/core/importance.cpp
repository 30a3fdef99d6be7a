#include "lmq/quant/importance.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

namespace lmq {

namespace {
/// Curvature between weights, for whole rows of `length`.
bool covers_layer(const Importance& importance, std::uint64_t count) noexcept {
  const std::uint64_t length = importance.length;
  if (importance.gram.empty() && importance.outer.empty()) return true;
  if (length == 0 || importance.first_column != 0 || count % length != 0) return false;
  if (!importance.gram.empty() && importance.gram.size() != length * length) return false;
  if (importance.outer.empty()) return true;
  const std::uint64_t r = importance.outer_rows;
  return r > 0 && importance.outer.size() == (count / length + r - 1) / r * r * r;
}
}  // namespace

bool covers(const Importance& importance, std::uint64_t count) noexcept {
  if (!covers_layer(importance, count)) return false;
  const std::size_t held = importance.values.size();
  switch (importance.kind) {
    case Importance::Kind::none:
      return true;
    case Importance::Kind::columns:
      if (importance.one_row()) return held > 0 || count == 0;
      break;
    case Importance::Kind::weights:
      return held == count;
    case Importance::Kind::rows:
    case Importance::Kind::outer:
      break;
  }
  if (count == 0) return true;
  if (importance.length == 0 || held == 0 || held % importance.length != 0) return false;
  const std::uint64_t touched = (importance.first_column % importance.length + count - 1) / importance.length + 1;
  if (!importance.rows.empty() && importance.rows.size() < touched) return false;
  const std::uint64_t blocks =
      importance.block_rows == 0
          ? 1
          : (importance.first_row % importance.block_rows + touched - 1) / importance.block_rows + 1;
  return held / importance.length >= blocks;
}

double largest_importance(const Importance& importance) noexcept {
  if (importance.values.empty()) return 0;
  const float largest = *std::ranges::max_element(importance.values);
  if (importance.rows.empty()) return largest;
  const float product = largest * *std::ranges::max_element(importance.rows);  // rounded as importance_at does
  return product;
}

double importance_quantum(double largest, std::uint64_t weights) noexcept {
  if (!(largest > 0) || !std::isfinite(largest)) return 1;
  // weights * (largest / quantum + 1) <= 2^61 + weights: the 1 is what rounding and the minimum of one step may add.
  const int weight_bits = weights > 1 ? static_cast<int>(std::bit_width(weights - 1)) : 0;
  const int step_bits = std::clamp(61 - weight_bits, 0, 50);
  int exponent = 0;
  std::frexp(largest, &exponent);  // largest < 2^exponent
  return std::ldexp(1.0, std::max(exponent - step_bits, -1022));
}

double layer_importance(std::size_t layer, double quantum) noexcept {
  return std::ldexp(1 + (static_cast<double>(layer % 4) + 0.5) / 4, static_cast<int>(layer / 4)) * quantum;
}

}  // namespace lmq
