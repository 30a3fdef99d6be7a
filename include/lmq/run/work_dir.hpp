#pragma once
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lmq/io/file.hpp"
#include "lmq/run/journal.hpp"
#include "lmq/run/run_lock.hpp"

namespace lmq {

/// Where a Finished lies: in journal-RUN-RANK of the work directory.
struct JournalPlace {
  std::uint32_t run = 0, rank = 0;
  std::uint64_t offset = 0;
  std::uint32_t length = 0;
};
using ResultUse = std::function<void(Finished&& finished, const JournalPlace& place)>;

/// How long a lock is waited for, and who is told of it.
struct LockPatience {
  std::chrono::milliseconds patience = std::chrono::seconds(15);
  std::function<void(const std::string&)> say;
};

/// The folder of spools and journals, opened by rank 0 alone: locked (lmq-lock, RunLock) against runs for other outputs
/// for as long as this lives. It may be any folder: other files in it are never touched, whatever their names.
class WorkDir {
 public:
  /// Makes the folder when it is missing, and again when a run that was waited for has removed it. `resume`: journals of
  /// our version are read, whatever plan and input they are of (Finished::identity tells what can be used; run, rank and
  /// plan of `now` do not matter); else our files there are removed. Errc::cannot_create, also when another run holds it.
  WorkDir(std::filesystem::path folder, const JournalHeader& now, bool resume, LockPatience lock = {});
  WorkDir(const WorkDir&) = delete;
  WorkDir& operator=(const WorkDir&) = delete;
  /// Removes journals in which nothing is, and the folder when nothing is in it.
  ~WorkDir();

  /// Number for this run's files: higher than any there.
  [[nodiscard]] std::uint32_t run() const noexcept { return run_; }
  /// Reads the results of earlier runs whose payload lies inside its spool (its digest is not yet checked).
  void each_result(const ResultUse& use) const;
  /// Removes our files, and the folder when nothing else is in it. Errors are not reported: the output is done.
  void remove() noexcept;

 private:
  void remove_empty() const;
  void leave() noexcept;
  std::filesystem::path folder_;
  std::optional<RunLock> lock_;
  std::uint32_t run_ = 1;
  std::string input_stamp_;
};

/// Whether a plain name is one that the work directory gives its files.
[[nodiscard]] bool is_name_of_work_dir(const std::string& name);

/// Reads results and payloads of earlier tasks; keeps the files open. Not for several threads.
class SpoolFiles {
 public:
  explicit SpoolFiles(std::filesystem::path work_dir) : work_dir_(std::move(work_dir)) {}
  /// The payload in `buffer` (which only grows); empty span when its bytes are not those of the digest, or not there.
  /// Errc::io when reading fails.
  [[nodiscard]] std::span<const std::byte> read(const SpoolPlace& place, std::vector<std::byte>& buffer);
  /// The result at a place of a journal; nothing when it is no longer there. Errc::io when reading fails.
  [[nodiscard]] std::optional<Finished> read(const JournalPlace& place);

 private:
  struct Open {
    std::string name;
    File file;
  };
  /// nullptr when it is gone.
  const File* open(const std::string& name);
  std::filesystem::path work_dir_;
  std::vector<Open> open_;
};

}  // namespace lmq
