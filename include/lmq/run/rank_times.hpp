#pragma once
#include <span>
#include <string>
#include <vector>

namespace lmq {

/// Where the wall time of a rank's computing thread went, seconds. Reading ahead is not in it: only what was waited for.
struct RankTimes {
  double computing = 0;      ///< measure, solve, quantize
  double writing = 0;        ///< copy to the output, read back, make durable
  double waiting_input = 0;  ///< a task's input was not read yet
  double waiting_work = 0;   ///< there was no task
  [[nodiscard]] double all() const noexcept { return computing + writing + waiting_input + waiting_work; }
  /// Part of the time with something to do, 0..1.
  [[nodiscard]] double busy() const noexcept { return all() > 0 ? (computing + writing) / all() : 1; }
};

/// "2 ranks 97 % busy (least 95 %, rank 1): computing 71 %, writing 26 %; waiting for input 2 %, for work 1 %"; of their
/// time together. Empty for no ranks.
[[nodiscard]] std::string text_of(std::span<const RankTimes> ranks);

}  // namespace lmq
