#pragma once
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>

#include "lmq/run/executor.hpp"
#include "lmq/run/rank_times.hpp"

namespace lmq {

/// Two threads beside the rank's main thread: one reads the next task's input while the other computes, so that neither
/// disk nor messages are waited for. Tasks are done in the order given.
class Worker {
 public:
  Worker(const RunContext& context, Spool& spool);
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  ~Worker();  ///< stops and waits for the task in hand

  void push(Task task);
  /// The next finished task; throws what made a task fail (then nothing more is done).
  [[nodiscard]] std::optional<Outcome> take();
  /// Until something is finished, or for that long.
  void wait(std::chrono::microseconds at_most);
  /// Tasks not yet begun are dropped; the one in hand is finished and can be taken.
  void stop() noexcept;
  /// Stopped, and nothing in hand any more.
  [[nodiscard]] bool at_rest();
  /// Where the time of the computing thread went, up to its last task or wake.
  [[nodiscard]] RankTimes times();

 private:
  void load_all();
  void run_all();
  [[nodiscard]] bool next_loaded(LoadedTask& loaded);
  void keep_failure(bool& mine);

  Executor executor_;
  // Two sets of buffers: the slot holds one, the running task the other; the slot is empty when the next is loaded.
  // They outlive both threads: the loader may end while a task still runs on what it loaded.
  TaskBuffers buffers_[2];
  std::mutex mutex_;
  std::condition_variable work_, news_;  // for the threads; for the main thread
  std::deque<Task> queue_;
  std::optional<LoadedTask> loaded_;
  std::deque<Outcome> finished_;
  std::exception_ptr failure_;
  bool stopping_ = false, loading_ = false, running_ = false;
  RankTimes times_;
  std::thread loader_, runner_;
};

}  // namespace lmq
