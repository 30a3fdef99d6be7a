#include "worker.hpp"

#include <utility>

#include "task_type.hpp"

namespace lmq {
namespace {

double seconds_since(std::chrono::steady_clock::time_point from) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - from).count();
}

}  // namespace

Worker::Worker(const RunContext& context, Spool& spool) : executor_(context, spool) {
  loader_ = std::thread([this] { load_all(); });
  runner_ = std::thread([this] { run_all(); });
}

Worker::~Worker() {
  stop();
  loader_.join();
  runner_.join();
}

void Worker::push(Task task) {
  executor_.prefetch(task);
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(task));
  }
  work_.notify_all();
}

std::optional<Outcome> Worker::take() {
  const std::lock_guard lock(mutex_);
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  if (finished_.empty()) return std::nullopt;
  Outcome outcome = std::move(finished_.front());
  finished_.pop_front();
  return outcome;
}

void Worker::wait(std::chrono::microseconds at_most) {
  std::unique_lock lock(mutex_);
  news_.wait_for(lock, at_most, [&] { return !finished_.empty() || failure_; });
}

void Worker::stop() noexcept {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    queue_.clear();
    loaded_.reset();
  }
  work_.notify_all();
}

bool Worker::at_rest() {
  const std::lock_guard lock(mutex_);
  return stopping_ && !loading_ && !running_;
}

void Worker::keep_failure(bool& mine) {
  {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::current_exception();
    stopping_ = true;
    mine = false;
    queue_.clear();
    loaded_.reset();
  }
  work_.notify_all();
  news_.notify_all();
}

void Worker::load_all() {
  try {
    for (std::size_t turn = 0;; ++turn) {
      Task task;
      {
        std::unique_lock lock(mutex_);
        work_.wait(lock, [&] { return stopping_ || (!queue_.empty() && !loaded_); });
        if (stopping_) return;
        task = std::move(queue_.front());
        queue_.pop_front();
        loading_ = true;
      }
      LoadedTask loaded = executor_.load(std::move(task), buffers_[turn % 2]);
      {
        const std::lock_guard lock(mutex_);
        loading_ = false;
        if (!stopping_) loaded_ = std::move(loaded);
      }
      work_.notify_all();
    }
  } catch (...) {
    keep_failure(loading_);
  }
}

/// Waits for a task whose input is read; false: stopped.
bool Worker::next_loaded(LoadedTask& loaded) {
  std::unique_lock lock(mutex_);
  while (!stopping_ && !loaded_) {
    const bool for_input = loading_ || !queue_.empty();
    const auto from = std::chrono::steady_clock::now();
    work_.wait(lock);
    (for_input ? times_.waiting_input : times_.waiting_work) += seconds_since(from);
  }
  if (stopping_) return false;
  loaded = std::move(*loaded_);
  loaded_.reset();
  running_ = true;
  return true;
}

void Worker::run_all() {
  try {
    for (LoadedTask loaded; next_loaded(loaded);) {
      work_.notify_all();
      const auto from = std::chrono::steady_clock::now();
      Outcome outcome = executor_.run(loaded);
      const bool commits = type_of(loaded.task.key).commits;
      {
        const std::lock_guard lock(mutex_);
        (commits ? times_.writing : times_.computing) += seconds_since(from);
        finished_.push_back(std::move(outcome));
        running_ = false;
      }
      news_.notify_all();
    }
  } catch (...) {
    keep_failure(running_);
  }
}

RankTimes Worker::times() {
  const std::lock_guard lock(mutex_);
  return times_;
}

}  // namespace lmq
