#pragma once
#include <cstddef>
#include <functional>

namespace lmq {

/// Threads that parallel_for uses: set once by the command line, else OMP_NUM_THREADS, SLURM_CPUS_PER_TASK,
/// else the CPUs this process may run on.
[[nodiscard]] std::size_t thread_count() noexcept;
/// 0 returns to the default.
void set_thread_count(std::size_t threads) noexcept;

/// Calls body(0) .. body(count - 1), each once, in any order, on thread_count() threads.
/// The exception of the lowest failing index is thrown after all have ended. Nested calls run serially.
void parallel_for(std::size_t count, const std::function<void(std::size_t)>& body);
/// The same with the worker's number (0 .. thread_count() - 1), for scratch memory.
void parallel_for_worker(std::size_t count, const std::function<void(std::size_t index, std::size_t worker)>& body);

}  // namespace lmq
