#pragma once
#include <cstddef>
#include <span>
#include <vector>

#include "lmq/quant/width_allocation.hpp"

namespace lmq {

/// What the records of a scope took, and what its errors cost.
struct WidthResult {
  double bytes = 0, loss = 0;
};

/// Widths of the scopes of a budget. Tables are of histograms, not of what a method makes of rows and Gram matrices:
/// what records took and lost corrects them. A width that was made costs that, others of its scope as many times more
/// or less. Uniform widths are made first, whatever is asked for, and kept where nothing that was made is better: so no
/// allocation ends above them.
class WidthBudget {
 public:
  /// room: bytes of all records together.
  WidthBudget(Allocation how, std::vector<WidthTable> tables, double room);
  /// [tables] index into each: what is to be made. Of uniform widths; the smallest when nothing fits.
  [[nodiscard]] const std::vector<std::size_t>& points() const noexcept { return points_; }
  /// What the tables alone would choose.
  [[nodiscard]] const std::vector<std::size_t>& expected_points() const noexcept { return expected_; }
  /// After points() were made: room for all records together, and [tables] what came of them. Then points() are as
  /// they were, and all is well, or are to be made. At most 26 times; in the end the least loss that fitted. False:
  /// nothing fits.
  [[nodiscard]] bool correct(double room, std::span<const WidthResult> results);

 private:
  void learn(std::span<const WidthResult> results);
  [[nodiscard]] std::vector<std::size_t> choose(Allocation how, double room) const;
  [[nodiscard]] bool propose(Allocation how, double room, bool fits);
  [[nodiscard]] double loss() const noexcept;
  [[nodiscard]] bool take_best();
  [[nodiscard]] std::vector<std::size_t> smallest() const;

  Allocation how_;
  std::vector<WidthTable> tables_;
  std::vector<std::vector<bool>> made_;  // [tables][points]
  std::vector<std::size_t> expected_, points_, best_;
  double best_loss_ = 0;
  int corrections_ = 0;  // of the stage
  bool is_uniform_ = true, final_ = false;
};

}  // namespace lmq
