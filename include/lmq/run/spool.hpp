#pragma once
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <mutex>
#include <string>
#include <thread>

#include "lmq/io/file.hpp"
#include "lmq/run/journal.hpp"
#include "lmq/run/task.hpp"

namespace lmq {

[[nodiscard]] std::string spool_name(std::uint32_t run, std::uint32_t rank);
[[nodiscard]] std::string journal_name(std::uint32_t run, std::uint32_t rank);

/// Results of one rank in one run: payloads one after the other in the spool, what they are in the journal. Files are
/// made with the first result. An entry goes to the journal after its payload has been handed to the system, so it
/// survives the process at once; a thread makes both durable every 2 seconds or 256 MiB (one fdatasync each, about 5
/// ms), so it survives the machine. Should the machine write the entry first and stop, the payload's digest tells. One
/// thread appends; any thread may flush. Errors of the flushing thread come out of the next call.
class Spool {
 public:
  Spool(std::filesystem::path work_dir, JournalHeader header);
  Spool(const Spool&) = delete;
  Spool& operator=(const Spool&) = delete;
  ~Spool();  ///< flushes; errors are lost

  /// Fills in finished.place and keeps both. Errc::cannot_create, Errc::io.
  void append(Finished& finished, std::span<const std::byte> payload);
  /// What has been appended is durable. Errc::io.
  void flush();
  /// Closes the files without making them durable: they are about to be removed. Nothing may be appended after it.
  void discard();
  [[nodiscard]] std::uint64_t bytes() const noexcept { return spool_end_; }

 private:
  void open();
  void flush_in_background();
  void sync_files();
  void end_flusher();

  std::filesystem::path work_dir_;
  JournalHeader header_;
  File spool_, journal_;
  std::uint64_t spool_end_ = 0, journal_end_ = 0;
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::mutex syncing_;  // held while the files are synced: one at a time
  std::uint64_t unsynced_bytes_ = 0;
  bool dirty_ = false, closing_ = false;
  std::exception_ptr error_;
  std::thread flusher_;
};

}  // namespace lmq
