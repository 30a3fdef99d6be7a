#include "priced_levels.hpp"

#include <algorithm>
#include <bit>
#include <limits>

#include "steps.hpp"

namespace lmq {
namespace {

constexpr double kLargest = std::numeric_limits<float>::max();

// A value that is exactly 0 gets level `zero`: an interval of its own unless it has it already.
void keep_zero(std::size_t zero, PricedCuts& out) {
  const auto at = std::ranges::upper_bound(out.cuts, 0.0f) - out.cuts.begin();
  const Code around = out.order[static_cast<std::size_t>(at)];
  if (around == zero) return;
  out.cuts.insert(out.cuts.begin() + at, {0.0f, std::numeric_limits<float>::denorm_min()});
  out.order.insert(out.order.begin() + at + 1, {static_cast<Code>(zero), around});
}

}  // namespace

// importance * (v - c)^2 + price is a parabola that all levels share plus a line in v for each: their lower envelope.
void priced_cuts(std::span<const double> levels, std::span<const double> prices, double importance, PricedCuts& out) {
  out.cuts.clear(), out.order.clear();
  const auto crossing = [&](std::size_t l, std::size_t r) {
    const double gap = levels[r] - levels[l];
    const double x = levels[l] + gap / 2 + (prices[r] - prices[l]) / (2 * importance * gap);
    return static_cast<float>(std::clamp(x, -kLargest, kLargest));
  };
  for (std::size_t l = 0; l < levels.size(); ++l) {
    while (!out.cuts.empty() && crossing(out.order.back(), l) <= out.cuts.back())
      out.cuts.pop_back(), out.order.pop_back();
    if (!out.order.empty()) out.cuts.push_back(crossing(out.order.back(), l));
    out.order.push_back(static_cast<Code>(l));
  }
  const auto zero = std::ranges::find(levels, 0.0);
  if (zero != levels.end()) keep_zero(static_cast<std::size_t>(zero - levels.begin()), out);
}

PricedLevels::PricedLevels(std::span<const float> levels, std::span<const double> prices, double quantum)
    : quantum_(quantum), stride_(std::bit_ceil(levels.size() + 2)) {
  cuts_.assign(kLayers * stride_, std::numeric_limits<float>::infinity());
  order_.assign(kLayers * stride_, 0);
  const std::vector<double> exact(levels.begin(), levels.end());
  PricedCuts layer_cuts;
  for (std::size_t layer = 0; layer < kLayers; ++layer) {
    priced_cuts(exact, prices, layer_importance(layer, quantum), layer_cuts);
    std::ranges::copy(layer_cuts.cuts, cuts_.begin() + static_cast<std::ptrdiff_t>(layer * stride_));
    std::ranges::copy(layer_cuts.order, order_.begin() + static_cast<std::ptrdiff_t>(layer * stride_));
  }
}

void PricedLevels::assign(std::span<const float> weights, std::span<const float> importance,
                          std::span<Code> codes) const noexcept {
  constexpr std::size_t kBlock = 1024;
  std::array<std::uint64_t, kBlock> steps;
  for (std::size_t begin = 0; begin < weights.size(); begin += kBlock) {
    const std::size_t count = std::min(kBlock, weights.size() - begin);
    importance_steps(importance.subspan(begin, count), quantum_, std::span(steps).first(count));
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t row = layer_of(steps[i]) * stride_;
      const float weight = weights[begin + i];
      std::size_t at = row;
      for (std::size_t half = stride_ / 2; half > 0; half /= 2) at += cuts_[at + half - 1] <= weight ? half : 0;
      codes[begin + i] = order_[at];
    }
  }
}

}  // namespace lmq
