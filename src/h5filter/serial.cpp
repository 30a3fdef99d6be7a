// base/parallel.hpp without threads, in place of base's own. A plug-in is a guest: its host may fork after reading, and a
// child cannot use OpenMP threads of its parent; and the machine it is loaded on may have no OpenMP.
#include <exception>

#include "lmq/base/parallel.hpp"

namespace lmq {

std::size_t thread_count() noexcept { return 1; }
void set_thread_count(std::size_t) noexcept {}

void parallel_for_worker(std::size_t count, const std::function<void(std::size_t, std::size_t)>& body) {
  std::exception_ptr first;
  for (std::size_t index = 0; index < count; ++index) {
    try {
      body(index, 0);
    } catch (...) {
      if (!first) first = std::current_exception();
    }
  }
  if (first) std::rethrow_exception(first);
}

void parallel_for(std::size_t count, const std::function<void(std::size_t)>& body) {
  parallel_for_worker(count, [&](std::size_t index, std::size_t) { body(index); });
}

}  // namespace lmq
