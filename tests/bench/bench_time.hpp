#pragma once
#include <time.h>

#include <algorithm>

namespace bench {

/// CPU time of the process, all threads; not sampled by ticks as getrusage's is.
inline double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// Least CPU seconds of some runs.
template <class Body>
double best_of(int runs, const Body& body) {
  double best = 1e300;
  for (int run = 0; run < runs; ++run) {
    const double begin = cpu_seconds();
    body();
    best = std::min(best, cpu_seconds() - begin);
  }
  return best;
}

}  // namespace bench
