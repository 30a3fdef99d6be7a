#pragma once

namespace lmq {

/// While one of these lives, SIGTERM, SIGUSR1, SIGHUP and SIGINT only raise a flag; a second SIGINT ends the process at
/// once. A SIGHUP that was ignored before (nohup) stays so.
/// Several may live at the same time (ranks on threads); the last to go restores what was there before.
class SignalGuard {
 public:
  SignalGuard();
  SignalGuard(const SignalGuard&) = delete;
  SignalGuard& operator=(const SignalGuard&) = delete;
  ~SignalGuard();
  /// The signal that came since the first of the living guards was made, or 0.
  [[nodiscard]] static int raised() noexcept;
};

/// Signals of these kinds wait until release_signals(): what comes while the program starts is neither lost nor kills
/// it. Kept over exec. Async-signal-safe.
void hold_signals() noexcept;
/// What has come meanwhile is delivered now, to the guard that lives or as it was before. Call it before any thread is
/// started: threads inherit what is held.
void release_signals() noexcept;

}  // namespace lmq
