#pragma once
#include <cstdint>
#include <deque>
#include <filesystem>
#include <map>
#include <optional>
#include <vector>

#include "copy_queues.hpp"
#include "lmq/container/layout.hpp"
#include "lmq/run/run_lock.hpp"
#include "lmq/run/task.hpp"
#include "part_file.hpp"

namespace lmq {

/// The last step, on rank 0: from finished units to the file under its final name. Nothing is computed. The file is
/// made beside its name, filled by all ranks, read back by them and compared, completed, made durable, and renamed.
/// Until then an older file of that name is untouched; a commit that is given up (destroyed before finish or keep)
/// removes what it made.
class Commit {
 public:
  struct Ranks {
    int count = 1;          ///< who may copy
    std::uint32_t run = 0;  ///< units whose records a rank wrote in this run are offered to it first
    std::string lock_run;   ///< RunLock::run of the output
  };
  /// What an earlier run had copied when it ended, and into which file.
  struct Begun {
    PartFile::Earlier part;
    std::map<std::uint64_t, CopyResult> copied;  ///< by unit
  };
  /// Lays out and creates the part file of `output`, or goes on with the one that was begun when that is laid out the
  /// same. Errors of PartFile. `contents` and `spooled` ([units] where the records lie; length 0: kept) outlive this.
  Commit(const OutputContents& contents, const std::vector<SpoolPlace>& spooled, LayoutFormat& format,
         const std::filesystem::path& output, const Ranks& ranks, const Begun& begun);
  Commit(const Commit&) = delete;
  Commit& operator=(const Commit&) = delete;

  [[nodiscard]] std::optional<Task> next(int rank);
  void copied(std::uint64_t unit, const CopyResult& result);
  [[nodiscard]] bool all_copied() const noexcept { return waiting_ == 0; }
  /// Units whose records were not what their digests say; nothing can be finished before they are made again.
  [[nodiscard]] const std::vector<std::uint64_t>& lost() const noexcept { return lost_; }
  /// Once all are copied: what lies in the file, unit by unit, against the journalled digests.
  [[nodiscard]] std::optional<Task> next_to_compare();
  /// A unit that differs is copied once more (all_copied is false then). Errc::io the second time.
  void compared(std::uint64_t unit, const CopyResult& result);
  /// Once all are compared: writes what lies below /lmq, syncs, reads that and the metadata back, lets `reader` check
  /// that the input is still the same and `lock` that the output is ours, renames.
  void finish(const Reader& reader, const std::filesystem::path& output, const RunLock& lock);

  /// What is there stays when the commit is given up, once something was copied.
  void keep() noexcept {
    if (bytes_copied_ > 0) part_.keep();
  }
  [[nodiscard]] bool adopted() const noexcept { return part_.adopted(); }

  [[nodiscard]] const std::vector<TensorLine>& tensors() const noexcept { return tensors_; }
  [[nodiscard]] std::uint64_t file_bytes() const noexcept { return whole_file_bytes(output_, part_.places()); }
  [[nodiscard]] std::uint64_t bytes_to_copy() const noexcept { return bytes_to_copy_; }
  [[nodiscard]] std::uint64_t bytes_copied() const noexcept { return bytes_copied_; }

 private:
  [[nodiscard]] Task copy_task(std::uint64_t unit) const;

  const OutputContents& contents_;
  const std::vector<SpoolPlace>& spooled_;  // [units]
  std::vector<TensorLine> tensors_;
  Output output_;
  PartFile part_;
  std::string origin_;  // of the part file
  CopyQueues queues_;
  std::deque<std::uint64_t> to_compare_;     // units
  std::vector<std::uint64_t> kept_digests_;  // [units]
  std::vector<bool> copied_again_;           // [units] that were found different once
  std::vector<std::uint64_t> lost_;
  std::uint64_t waiting_ = 0, bytes_to_copy_ = 0, bytes_copied_ = 0;
};

}  // namespace lmq
