#pragma once
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "lmq/io/file.hpp"
#include "lmq/run/journal.hpp"

namespace lmq {

/// The folder of spools and journals, opened by rank 0 alone: locked against another run for as long as this lives.
/// The lock is the system's (flock): it ends with the process, however that ends; ranks of a killed run may need a
/// while for that, so it is waited for. Where the file system knows none, only the file `lock` tells people who works
/// here.
class WorkDir {
 public:
  /// Makes the folder when it is missing. `resume`: journals of the same plan and input are read, others are
  /// Errc::usage (run and rank of `now` do not matter); else our files there are removed. Nothing else in the folder is
  /// ever touched. Errc::cannot_create; Errc::usage when another run holds it.
  WorkDir(std::filesystem::path folder, const JournalHeader& now, bool resume,
          std::chrono::milliseconds patience = std::chrono::seconds(15));

  /// Number for this run's files: higher than any there.
  [[nodiscard]] std::uint32_t run() const noexcept { return run_; }
  /// Results of earlier runs whose payload lies inside its spool (its digest is not yet checked).
  [[nodiscard]] std::vector<Finished>& results() noexcept { return results_; }
  /// Removes our files, and the folder when nothing else is in it. Errors are not reported: the output is done.
  void remove() noexcept;

 private:
  void lock(std::chrono::milliseconds patience);
  void read_journals(const JournalHeader& now);
  std::filesystem::path folder_;
  File lock_;
  std::uint32_t run_ = 1;
  std::vector<Finished> results_;
};

/// Reads payloads of spools; keeps the files open. Not for several threads.
class SpoolFiles {
 public:
  explicit SpoolFiles(std::filesystem::path work_dir) : work_dir_(std::move(work_dir)) {}
  /// The payload in `buffer` (which only grows); empty span when its bytes are not those of the digest, or not there.
  /// Errc::io when reading fails.
  [[nodiscard]] std::span<const std::byte> read(const SpoolPlace& place, std::vector<std::byte>& buffer);

 private:
  struct Open {
    std::uint32_t run, rank;
    File file;
  };
  std::filesystem::path work_dir_;
  std::vector<Open> open_;
};

}  // namespace lmq
