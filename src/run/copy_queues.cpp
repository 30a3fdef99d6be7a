#include "copy_queues.hpp"

#include <algorithm>

namespace lmq {

void CopyQueues::offer(std::uint64_t unit, std::size_t rank) {
  queues_[std::min(rank, queues_.size() - 1)].push_back(unit);
  ++waiting_;
}

std::optional<std::uint64_t> CopyQueues::next(std::size_t rank) {
  if (waiting_ == 0) return std::nullopt;
  auto* queue = &queues_[rank];
  if (queue->empty()) queue = &queues_.back();
  if (queue->empty()) queue = &*std::ranges::max_element(queues_, {}, &std::deque<std::uint64_t>::size);
  const std::uint64_t unit = queue->front();
  queue->pop_front();
  --waiting_;
  return unit;
}

}  // namespace lmq
