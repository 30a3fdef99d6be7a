#pragma once
#include <chrono>
#include <optional>

#include "coordinator.hpp"
#include "lmq/run/comm.hpp"
#include "lmq/run/spool.hpp"
#include "protocol.hpp"
#include "worker.hpp"

namespace lmq {

/// What the main thread of a rank does from start to end: takes messages, hands tasks to the worker and results to rank
/// 0, looks at signals. On rank 0 it also drives the coordinator. It sleeps while there is nothing to do.
class RankLoop {
 public:
  /// coordinator: on rank 0, else nullptr. `header` says run and rank of the spool.
  RankLoop(Comm& comm, const RunContext& context, JournalHeader header, Coordinator* coordinator);
  /// Returns on success; else every rank throws the same AgreedError. An Error that is none: rank 0 is gone.
  void run();

 private:
  using Clock = std::chrono::steady_clock;
  bool step();
  void handle(const Message& message);
  void look_at_signals();
  void fail_all(const RunStatus& status);
  [[nodiscard]] bool leave();

  Comm& comm_;
  Coordinator* coordinator_;
  Spool spool_;
  Worker worker_;                    // after the spool it writes to
  std::optional<RunStatus> status_;  // once rank 0 has said it is over
  bool told_ = false;                // rank 0 knows that this rank failed or was interrupted
  Clock::time_point told_at_;
  bool done_ = false;
};

}  // namespace lmq
