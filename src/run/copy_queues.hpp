#pragma once
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

namespace lmq {

/// Units that wait to be copied to the output: each rank first gets what it wrote itself, then what is nobody's, then
/// from whoever has most left. Cost per unit: constant, of the last kind O(ranks).
class CopyQueues {
 public:
  explicit CopyQueues(std::size_t ranks) : queues_(ranks + 1) {}
  /// rank: whose record it is; beyond the ranks: nobody's.
  void offer(std::uint64_t unit, std::size_t rank = SIZE_MAX);
  /// Nothing: none waits.
  [[nodiscard]] std::optional<std::uint64_t> next(std::size_t rank);

 private:
  std::vector<std::deque<std::uint64_t>> queues_;  // [ranks + 1] the last: nobody's
  std::uint64_t waiting_ = 0;
};

}  // namespace lmq
