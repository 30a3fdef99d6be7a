#include "lmq/quant/codebook.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "lmq/base/error.hpp"

namespace lmq {
namespace {
constexpr std::size_t kMostLevels = 256;

void check(std::span<const float> levels) {
  if (levels.empty()) fail(Errc::internal, "a codebook needs at least one level");
  if (levels.size() > kMostLevels)
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
  if (count > kMostLevels || (count > 1 && !(step > 0)) || !std::isfinite(step))
    fail(Errc::internal, "a grid of " + std::to_string(count) + " levels with step " + std::to_string(step));
  std::vector<float> levels(count);
  grid_levels(low, step, levels);
  Codebook book = table(std::move(levels));
  if (count > 1) book.step_ = step;
  book.kind_ = book.levels_.size() == count ? CodebookKind::grid : CodebookKind::table;
  return book;
}

Codebook Codebook::stored_as(LevelType type) const {
  if (kind_ == CodebookKind::grid) {
    std::array numbers{low(), step_};
    round_levels(numbers, type);
    return levels_.size() == 1 || !(numbers[1] > 0) ? grid(numbers[0], 0, 1)
                                                    : grid(numbers[0], numbers[1], levels_.size());
  }
  std::vector<float> levels = levels_;
  round_levels(levels, type);
  return table(std::move(levels));
}

}  // namespace lmq
