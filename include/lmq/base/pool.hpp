#pragma once
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace lmq {

/// Objects kept between uses, because memory that is already there is the cheap kind. Whoever leases one has it alone.
template <class T>
class Pool {
 public:
  class Lease {
   public:
    explicit Lease(Pool& pool) : pool_(&pool), object_(pool.take()) {}
    Lease(Lease&& other) noexcept : pool_(other.pool_), object_(std::move(other.object_)) {}
    Lease& operator=(Lease&&) = delete;
    ~Lease() {
      if (object_) pool_->give(std::move(object_));
    }
    [[nodiscard]] T& operator*() const noexcept { return *object_; }
    /// Frees the object instead of giving it back.
    void discard() noexcept { object_.reset(); }

   private:
    Pool* pool_;
    std::unique_ptr<T> object_;
  };
  [[nodiscard]] Lease lease() { return Lease(*this); }

 private:
  std::unique_ptr<T> take() {
    const std::lock_guard lock(mutex_);
    if (idle_.empty()) return std::make_unique<T>();
    auto object = std::move(idle_.back());
    idle_.pop_back();
    return object;
  }
  void give(std::unique_ptr<T> object) noexcept {
    const std::lock_guard lock(mutex_);
    try {
      idle_.push_back(std::move(object));
    } catch (...) {  // no memory to remember it: it is freed
    }
  }
  std::mutex mutex_;
  std::vector<std::unique_ptr<T>> idle_;
};

/// One leased object for each worker of a parallel_for_worker, taken at its first use. They go back to the pool only
/// when finish() was called: what an exception left half done is freed.
template <class T>
class PerWorker {
 public:
  PerWorker(Pool<T>& pool, std::size_t workers) : pool_(pool), leases_(workers) {}
  PerWorker(const PerWorker&) = delete;
  PerWorker& operator=(const PerWorker&) = delete;
  ~PerWorker() {
    for (auto& lease : leases_)
      if (lease && !finished_) lease->discard();
  }
  /// Only called by that worker.
  [[nodiscard]] T& operator[](std::size_t worker) {
    if (!leases_[worker]) leases_[worker] = std::make_unique<typename Pool<T>::Lease>(pool_.lease());
    return **leases_[worker];
  }
  /// Calls visit(object) for those in use, in order of workers; afterwards they are as the next user wants them.
  template <class Visit>
  void finish(const Visit& visit) {
    for (auto& lease : leases_)
      if (lease) visit(**lease);
    finished_ = true;
  }

 private:
  Pool<T>& pool_;
  std::vector<std::unique_ptr<typename Pool<T>::Lease>> leases_;
  bool finished_ = false;
};

}  // namespace lmq
