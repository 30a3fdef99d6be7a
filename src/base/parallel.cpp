#include "lmq/base/parallel.hpp"

#include <omp.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <mutex>

namespace lmq {
namespace {
std::atomic<std::size_t> requested_threads{0};

std::size_t positive_number(const char* variable) noexcept {
  const char* text = std::getenv(variable);
  const long value = text ? std::strtol(text, nullptr, 10) : 0;
  return value > 0 ? static_cast<std::size_t>(value) : 0;
}

std::size_t default_threads() noexcept {
  if (const std::size_t omp = positive_number("OMP_NUM_THREADS")) return omp;
  if (const std::size_t slurm = positive_number("SLURM_CPUS_PER_TASK")) return slurm;
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof mask, &mask) != 0) return 1;
  return static_cast<std::size_t>(std::max(1, CPU_COUNT(&mask)));
}

/// Keeps the exception of the lowest index.
class FirstFailure {
 public:
  void keep(std::size_t index) noexcept {
    const std::lock_guard lock(mutex_);
    if (!error_ || index < index_) error_ = std::current_exception(), index_ = index;
  }
  void raise() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr error_;
  std::size_t index_ = 0;
};
}  // namespace

std::size_t thread_count() noexcept {
  static const std::size_t fallback = default_threads();
  const std::size_t wanted = requested_threads.load();
  return wanted > 0 ? wanted : fallback;
}

void set_thread_count(std::size_t threads) noexcept { requested_threads.store(threads); }

void parallel_for_worker(std::size_t count, const std::function<void(std::size_t, std::size_t)>& body) {
  FirstFailure failure;
  const auto guarded = [&](std::size_t index, std::size_t worker) noexcept {
    try {
      body(index, worker);
    } catch (...) {
      failure.keep(index);
    }
  };
  const int threads = static_cast<int>(std::min(count, thread_count()));
  if (threads <= 1 || omp_in_parallel()) {
    for (std::size_t index = 0; index < count; ++index) guarded(index, 0);
  } else {
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (std::size_t index = 0; index < count; ++index) guarded(index, static_cast<std::size_t>(omp_get_thread_num()));
  }
  failure.raise();
}

void parallel_for(std::size_t count, const std::function<void(std::size_t)>& body) {
  parallel_for_worker(count, [&](std::size_t index, std::size_t) { body(index); });
}

}  // namespace lmq
