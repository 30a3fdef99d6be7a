#pragma once
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "lmq/io/file.hpp"

namespace lmq {

/// What a lock file says, one "key value" per line after the line "lmq lock 1". Any text is read; what is missing stays
/// empty.
struct LockWords {
  std::string who;                 ///< "process 12 on host"; empty: nobody is at work
  std::string kernel;              ///< boot id: the same text means that the system's locks reach from one to the other
  std::string pids;                ///< namespace of process numbers
  std::uint64_t pid = 0;           ///< of who, in `pids`
  std::uint64_t born = 0;          ///< start time of that process in clock ticks after boot
  std::string run;                 ///< 16 hex digits: one holding of the lock
  std::uint64_t beat = 0;          ///< counts up every 3 seconds as long as the lock is held
  std::string plan;                ///< digest of the plan that is worked on
  bool finished = false;           ///< last words: the work of `plan` was done
  std::vector<std::string> parts;  ///< unfinished files that may lie beside the lock: plain names

  [[nodiscard]] std::string text() const;
  /// `ours`: false when `text` is neither empty nor begins as a lock file does.
  [[nodiscard]] static LockWords parse(const std::string& text, bool& ours);
};

/// One run at a time on an output, or in a work folder: a file that is held from construction to destruction.
///
/// Within one machine the system's lock (flock) decides; it ends with the process, however that ends. Other machines
/// may not see it (Lustre with `localflock`, NFS with `local_lock`), or there is none at all: so the file also says who
/// holds it, and counts up while he lives. A holder of another machine is taken for dead when nothing was counted for
/// 12 seconds; one of the same machine without flock, when its process is gone. The file is made exclusively, its first
/// holder is who made it.
/// The file is removed by its holder only, while it is locked; who waited for it sees that the name has gone and
/// begins again. It stays when an unfinished file lies beside it, or when the holder was killed.
class RunLock {
 public:
  struct Request {
    std::filesystem::path path;  ///< of the lock file
    std::string subject;         ///< what is locked, for messages: "out.h5", "the work directory w"
    std::string plan;            ///< digest
    bool makes_folder = false;   ///< the lock's folder is made where it is missing, also when a holder takes it away
    std::chrono::milliseconds patience = std::chrono::seconds(15);  ///< ranks of a killed run need a while to go
    /// A holder on another machine that counts nothing for so long is gone: four beats.
    std::chrono::milliseconds silence = std::chrono::seconds(12);
    bool content_with_others = false;             ///< when someone finishes the same plan while we wait, that will do
    std::function<void(const std::string&)> say;  ///< told once who is waited for, or that locks are missing
  };
  /// Errc::cannot_create: somebody else is at work (named with process and host), the file cannot be made, or a file of
  /// that name is none of ours. Errc::interrupted: a signal came while waiting. Errc::io: out of space.
  explicit RunLock(Request request);
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;
  ~RunLock();

  /// Who finished the same plan while we waited (then nothing is held); empty: the lock is ours.
  [[nodiscard]] const std::string& finished_by() const noexcept { return finished_by_; }
  /// 16 hex digits that no other holding has.
  [[nodiscard]] const std::string& run() const noexcept { return words_.run; }
  /// Errc::cannot_create when another run has taken the lock over (this one stood still for long on a file system
  /// whose locks do not reach over machines).
  void check_held() const;
  /// Unfinished files, plain names beside the lock, that earlier holders may have left.
  [[nodiscard]] std::vector<std::string> parts() const;
  /// From now on these, our own among them, may be there.
  void set_parts(std::vector<std::string> parts);
  /// The work is done: those who wait are told.
  void set_finished() noexcept { finished_ = true; }

 private:
  using Clock = std::chrono::steady_clock;
  enum class Look : std::uint8_t { taken, busy, again };
  void wait_until_taken();
  [[nodiscard]] Look look();
  [[nodiscard]] bool open();
  void make_folder() const;
  void remember_holder(const LockWords& there);
  [[nodiscard]] bool lives(const LockWords& there);
  [[nodiscard]] bool counts(const LockWords& there, std::chrono::milliseconds silence);
  [[nodiscard]] LockWords read(const File& file) const;
  [[nodiscard]] LockWords read_anew() const;
  [[nodiscard]] bool names_our_file() const;
  void say(const std::string& text) const;
  void write() const;
  void beat();
  void release() noexcept;

  Request request_;
  File file_;
  bool created_ = false;  // by us, and never yet written by anyone else
  bool waited_ = false, no_locks_ = false;
  int failures_ = 0;     // to open it, in a row
  std::string busy_;     // who holds it
  std::string watched_;  // the last words of a holder on another machine ...
  Clock::time_point watched_since_;
  std::string finished_by_;
  bool finished_ = false;
  mutable std::mutex mutex_;  // guards what follows
  LockWords words_;
  bool closing_ = false;
  std::condition_variable changed_;
  std::thread beater_;
};

}  // namespace lmq
