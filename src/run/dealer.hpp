#pragma once
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "lmq/run/task.hpp"

namespace lmq {

/// Who gets the next task. Every rank has at least two tasks in hand, one whose input is read while the other computes;
/// while tasks are short so many that the next message comes before it runs dry (50 ms of work, at most 32 tasks).
/// Ranks with room take turns. Cost per task: O(log of the tasks in hand), whatever the number of ranks.
class Dealer {
 public:
  using Next = std::function<std::optional<Task>(int rank)>;
  using Send = std::function<void(int rank, const Task& task)>;
  enum class Dry : std::uint8_t {
    for_all,   ///< where `next` has nothing for one rank it has nothing for any
    for_rank,  ///< every rank is to be asked
  };

  /// ranks: >= 1.
  explicit Dealer(int ranks);
  /// Until no rank has room or there is nothing more; true when something was dealt.
  bool deal(const Next& next, const Send& send, Dry dry = Dry::for_all);
  /// A rank has done a task; one that it was not dealt changes nothing.
  void returned(int rank, const TaskKey& key);
  [[nodiscard]] bool all_back() const noexcept { return in_hand_.empty(); }

 private:
  struct Hand {
    int tasks = 0;
    double seconds = 0;
    bool listed = true;  // in roomy_
    [[nodiscard]] bool has_room() const noexcept;
  };

  std::vector<Hand> hands_;            // [ranks]
  std::map<TaskKey, double> in_hand_;  // estimated seconds
  std::deque<int> roomy_;              // ranks with room, in the order of their turns
};

}  // namespace lmq
