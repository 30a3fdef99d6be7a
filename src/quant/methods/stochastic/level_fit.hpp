#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "level_narrowing.hpp"
#include "lmq/quant/group.hpp"
#include "lmq/quant/stochastic.hpp"

namespace lmq {

/// What a group gives: levels, or bins to look into.
struct LevelFit {
  StochasticLevels levels;
  std::vector<std::uint32_t> open_bins;  ///< of the group; empty: final
};

/// Levels of a group, not empty. Errors of check_levels.
[[nodiscard]] LevelFit fit_levels(const Group& group, const LevelChoice& choice);

/// The open bins as ranges, cut as finely as a round allows; nothing where even halves are too many.
[[nodiscard]] std::vector<KeyRange> ranges_of_bins(const Group& group, std::span<const std::uint32_t> bins);

}  // namespace lmq
