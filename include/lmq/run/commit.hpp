#pragma once
#include <cstdint>
#include <deque>
#include <filesystem>
#include <optional>
#include <vector>

#include "lmq/io/file.hpp"
#include "lmq/run/output.hpp"
#include "lmq/run/task.hpp"

namespace lmq {

/// The last step, on rank 0: from finished units to the file under its final name. Nothing is computed. The file is
/// made beside its name (OUT.part-DIGEST), filled by all ranks, completed, made durable, and renamed. Until then an
/// older file of that name is untouched; a commit that is given up (destroyed before finish) removes what it made.
class Commit {
 public:
  /// Lays out and creates the file. Errors of LayoutFormat::create. `contents` outlives this. ranks: who may copy;
  /// units whose records a rank wrote in run `run` are offered to it first (they are likely in its memory).
  Commit(const OutputContents& contents, LayoutFormat& format, std::filesystem::path output, int ranks,
         std::uint32_t run);
  Commit(const Commit&) = delete;
  Commit& operator=(const Commit&) = delete;
  ~Commit();

  [[nodiscard]] std::optional<Task> next(int rank);
  void copied(std::uint64_t unit, const CopyResult& result);
  [[nodiscard]] bool all_copied() const noexcept { return waiting_ == 0; }
  /// Units whose records were not what their digests say; nothing can be finished before they are made again.
  [[nodiscard]] const std::vector<std::uint64_t>& lost() const noexcept { return lost_; }
  /// Writes what lies below /lmq, syncs, lets `reader` check that the input is still the same, renames.
  void finish(const Reader& reader);

  [[nodiscard]] const std::vector<TensorReport>& tensors() const noexcept { return tensors_; }
  [[nodiscard]] std::uint64_t file_bytes() const noexcept { return places_.file_bytes; }
  [[nodiscard]] std::uint64_t bytes_to_copy() const noexcept { return bytes_to_copy_; }
  [[nodiscard]] std::uint64_t bytes_copied() const noexcept { return bytes_copied_; }

 private:
  void claim();
  [[nodiscard]] Task copy_task(std::uint64_t unit) const;

  const OutputContents& contents_;
  std::filesystem::path output_path_, part_;
  File part_lock_;  // held while the file is being written
  std::vector<TensorReport> tensors_;
  Output output_;
  FilePlaces places_;
  std::vector<std::deque<std::uint64_t>>
      queues_;                               // [ranks + 1] units by who offered best; the last: nobody in particular
  std::vector<std::uint64_t> kept_digests_;  // [units]
  std::vector<std::uint64_t> lost_;
  std::uint64_t waiting_ = 0, bytes_to_copy_ = 0, bytes_copied_ = 0;
  bool finished_ = false;
};

/// Name of the file while it is being written. Another run that is writing it holds a lock on it: Errc::usage then.
void refuse_busy_part(const std::filesystem::path& part);
[[nodiscard]] std::filesystem::path part_path(const std::filesystem::path& output, const std::string& plan_digest);

}  // namespace lmq
