#include "lmq/run/signals.hpp"

#include <array>
#include <atomic>
#include <csignal>
#include <mutex>

namespace lmq {
namespace {

constexpr std::array kSignals = {SIGTERM, SIGUSR1, SIGINT, SIGHUP};

std::atomic<int> raised_signal{0};
static_assert(std::atomic<int>::is_always_lock_free, "a signal handler may not wait");

std::mutex guards_mutex;
int guards = 0;
std::array<struct sigaction, kSignals.size()> before{};

void note(int signal) {
  if (signal == SIGINT && raised_signal.load() == SIGINT) {
    std::signal(SIGINT, SIG_DFL);
    std::raise(SIGINT);
    return;
  }
  raised_signal.store(signal);
}

sigset_t our_signals() noexcept {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : kSignals) sigaddset(&set, signal);
  return set;
}

}  // namespace

void hold_signals() noexcept {
  const sigset_t set = our_signals();
  sigprocmask(SIG_BLOCK, &set, nullptr);
}

void release_signals() noexcept {
  const sigset_t set = our_signals();
  sigprocmask(SIG_UNBLOCK, &set, nullptr);
}

SignalGuard::SignalGuard() {
  const std::lock_guard lock(guards_mutex);
  if (guards++ > 0) return;
  raised_signal.store(0);
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    struct sigaction action = {};
    action.sa_handler = note;
    action.sa_flags = SA_RESTART;  // a read in progress is not to fail
    sigemptyset(&action.sa_mask);
    sigaction(kSignals[i], &action, &before[i]);
    // Under nohup a terminal that hangs up is to be nothing to the run.
    if (kSignals[i] == SIGHUP && before[i].sa_handler == SIG_IGN) sigaction(SIGHUP, &before[i], nullptr);
  }
}

SignalGuard::~SignalGuard() {
  const std::lock_guard lock(guards_mutex);
  if (--guards > 0) return;
  for (std::size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &before[i], nullptr);
}

int SignalGuard::raised() noexcept { return raised_signal.load(); }

}  // namespace lmq
