#include "dealer.hpp"

#include <numeric>

namespace lmq {
namespace {

constexpr int kMinDealt = 2, kMaxDealt = 32;
constexpr double kDealtSeconds = 0.05;

}  // namespace

bool Dealer::Hand::has_room() const noexcept {
  return tasks < kMinDealt || (tasks < kMaxDealt && seconds < kDealtSeconds);
}

Dealer::Dealer(int ranks) : hands_(static_cast<std::size_t>(ranks)), roomy_(static_cast<std::size_t>(ranks)) {
  std::iota(roomy_.begin(), roomy_.end(), 0);
}

bool Dealer::deal(const Next& next, const Send& send, Dry dry) {
  bool busy = false;
  for (std::size_t in_vain = 0; in_vain < roomy_.size();) {
    const int rank = roomy_.front();
    const std::optional<Task> task = next(rank);
    if (!task && dry == Dry::for_all) break;
    roomy_.pop_front();
    if (task) {
      Hand& hand = hands_[static_cast<std::size_t>(rank)];
      ++hand.tasks;
      hand.seconds += task->seconds;
      in_hand_[task->key] = task->seconds;
      hand.listed = hand.has_room();
      if (hand.listed) roomy_.push_back(rank);
      send(rank, *task);
      busy = true;
      in_vain = 0;
    } else {
      roomy_.push_back(rank);
      ++in_vain;
    }
  }
  return busy;
}

void Dealer::returned(int rank, const TaskKey& key) {
  const auto found = in_hand_.find(key);
  if (found == in_hand_.end()) return;
  Hand& hand = hands_[static_cast<std::size_t>(rank)];
  --hand.tasks;
  hand.seconds -= found->second;
  in_hand_.erase(found);
  if (hand.listed || !hand.has_room()) return;
  hand.listed = true;
  roomy_.push_back(rank);
}

}  // namespace lmq
