#include "lmq/run/worker.hpp"

#include <utility>

namespace lmq {

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

void Worker::run_all() {
  try {
    for (;;) {
      LoadedTask loaded;
      {
        std::unique_lock lock(mutex_);
        work_.wait(lock, [&] { return stopping_ || loaded_; });
        if (stopping_) return;
        loaded = std::move(*loaded_);
        loaded_.reset();
        running_ = true;
      }
      work_.notify_all();
      Outcome outcome = executor_.run(loaded);
      {
        const std::lock_guard lock(mutex_);
        finished_.push_back(std::move(outcome));
        running_ = false;
      }
      news_.notify_all();
    }
  } catch (...) {
    keep_failure(running_);
  }
}

}  // namespace lmq
