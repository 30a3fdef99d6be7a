#include <unistd.h>

#include <cstdlib>

#include "app.hpp"
#include "lmq/run/signals.hpp"

namespace {

/// Threads that wait must sleep: by default libgomp's spin, which made two threads slower than one (2.4 against 1.1 s
/// for 2^28 weights). It reads its environment before main, so the program starts itself once more with the right one.
void sleep_while_waiting(char** argv) {
  if (std::getenv("OMP_WAIT_POLICY") != nullptr || std::getenv("GOMP_SPINCOUNT") != nullptr) return;
  if (setenv("OMP_WAIT_POLICY", "passive", 1) == 0) execv("/proc/self/exe", argv);  // on failure: as it is
}

void hold_signals_first(int, char**, char**) { lmq::hold_signals(); }
/// Called before the constructors of any library: from here on a signal waits until it can be answered.
[[gnu::section(".preinit_array"), gnu::used]] void (*const first)(int, char**, char**) = hold_signals_first;

}  // namespace

int main(int argc, char** argv) {
  sleep_while_waiting(argv);
  return lmq::app::run(argc, argv);
}
