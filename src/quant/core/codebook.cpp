#include "lmq/quant/codebook.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/grid_rounding.hpp"
#include "lmq/base/error.hpp"

namespace lmq {
namespace {
constexpr std::size_t kMaxLevels = 256;

void check(std::span<const float> levels) {
  if (levels.empty()) fail(Errc::internal, "a codebook needs at least one level");
  if (levels.size() > kMaxLevels)
    fail(Errc::internal, "a codebook of " + std::to_string(levels.size()) + " levels exceeds 256");
  for (const float level : levels)
    if (!std::isfinite(level)) fail(Errc::internal, "a codebook's level is not finite");
}
}  // namespace

Codebook Codebook::table(std::vector<float> levels) {
  for (float& level : levels) level += 0.0f;  // -0 becomes +0
  std::ranges::sort(levels);
  levels.erase(std::unique(levels.begin(), levels.end()), levels.end());
  check(levels);
  Codebook book;
  book.levels_ = std::move(levels);
  return book;
}

Codebook Codebook::grid(float low, float step, std::size_t count) {
  if (count > kMaxLevels || (count > 1 && !(step > 0)) || !std::isfinite(step))
    fail(Errc::internal, "a grid of " + std::to_string(count) + " levels with step " + std::to_string(step));
  std::vector<float> levels(count);
  grid_levels(low, step, levels);
  Codebook book = table(std::move(levels));
  if (count > 1) book.step_ = step;
  book.kind_ = book.levels_.size() == count ? CodebookKind::grid : CodebookKind::table;
  return book;
}

Codebook Codebook::of_signs(CodebookKind kind, std::vector<float> numbers, std::size_t levels, SignRule rule) {
  for (float& number : numbers) {
    if (!(number >= 0) || !std::isfinite(number)) fail(Errc::internal, "a base or step is negative or not finite");
    number += 0.0f;  // -0 becomes +0
  }
  const SignCode code(kind, numbers, levels, rule);
  Codebook book;
  book.levels_.assign(code.levels.begin(), code.levels.begin() + static_cast<std::ptrdiff_t>(levels));
  check(book.levels_);
  book.cuts_.assign(code.cuts.begin(), code.cuts.begin() + static_cast<std::ptrdiff_t>(code.intervals - 1));
  if (!code.in_order)
    book.order_.assign(code.codes.begin(), code.codes.begin() + static_cast<std::ptrdiff_t>(code.intervals));
  book.numbers_ = std::move(numbers);
  book.kind_ = kind;
  book.rule_ = rule;
  return book;
}

Codebook Codebook::bases(std::vector<float> bases, SignRule rule) {
  if (bases.empty() || bases.size() > 8) fail(Errc::internal, std::to_string(bases.size()) + " bases, expected 1..8");
  const std::size_t levels = std::size_t{1} << bases.size();
  return of_signs(CodebookKind::bases, std::move(bases), levels, rule);
}

Codebook Codebook::centred(float step, std::size_t count) {
  if (count < 1 || count > kMaxLevels) fail(Errc::internal, std::to_string(count) + " centred levels");
  return of_signs(CodebookKind::centred, {step}, count, SignRule::nearest);
}

Codebook Codebook::with_cuts(std::vector<float> cuts) const {
  if (cuts.size() + 1 != levels_.size())
    fail(Errc::internal, std::to_string(cuts.size()) + " cuts for " + std::to_string(levels_.size()) + " levels");
  for (std::size_t k = 0; k < cuts.size(); ++k)
    if (std::isnan(cuts[k]) || (k > 0 && cuts[k] < cuts[k - 1])) fail(Errc::internal, "cuts that do not ascend");
  Codebook book = *this;
  book.cuts_ = std::move(cuts);
  return book;
}

Codebook Codebook::with_prices(std::vector<double> prices) const {
  if (prices.size() != levels_.size())
    fail(Errc::internal, std::to_string(prices.size()) + " prices for " + std::to_string(levels_.size()) + " levels");
  if (!std::ranges::all_of(prices, [](double price) { return std::isfinite(price); }))
    fail(Errc::internal, "a price that is not finite");
  Codebook book = *this;
  book.cuts_.clear();
  book.prices_ = std::move(prices);
  return book;
}

Codebook Codebook::stored_as(LevelType type, bool cover) const {
  if (!numbers_.empty()) {
    std::vector<float> numbers = numbers_;
    round_levels(numbers, type);
    return of_signs(kind_, std::move(numbers), levels_.size(), rule_);
  }
  Codebook book;
  std::vector<float> rounded;  // as many as levels_, ascending
  if (kind_ == CodebookKind::grid) {
    std::array numbers{low(), step_};
    round_grids(numbers, levels_.size(), type);
    const bool single = levels_.size() == 1 || !(numbers[1] > 0);
    book = single ? grid(numbers[0], 0, 1) : grid(numbers[0], numbers[1], levels_.size());
    for (std::size_t k = 0; k < levels_.size(); ++k)
      rounded.push_back(numbers[0] + static_cast<float>(k) * std::max(numbers[1], 0.0f));
  } else {
    rounded = levels_;
    cover ? round_levels_covering(rounded, rounded.size(), type) : round_levels(rounded, type);
    book = table(rounded);
  }
  for (std::size_t k = 0; k < cuts_.size(); ++k)  // the cut between equal levels goes
    if (rounded[k] < rounded[k + 1]) book.cuts_.push_back(cuts_[k]);
  for (std::size_t k = 0; k < prices_.size(); ++k) {
    const bool again = k > 0 && !(rounded[k - 1] < rounded[k]);
    if (again)
      book.prices_.back() = std::min(book.prices_.back(), prices_[k]);
    else
      book.prices_.push_back(prices_[k]);
  }
  return book;
}

}  // namespace lmq
