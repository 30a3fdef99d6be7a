#include "lmq/run/spool.hpp"

#include <fmt/format.h>

#include <chrono>
#include <utility>

#include "lmq/base/digest.hpp"

namespace lmq {
namespace {
constexpr auto kFlushEvery = std::chrono::seconds(2);
constexpr std::uint64_t kFlushBytes = std::uint64_t{256} << 20;
}  // namespace

std::string spool_name(std::uint32_t run, std::uint32_t rank) {
  return fmt::format("lmq-spool-{:06}-{:06}", run, rank);
}
std::string journal_name(std::uint32_t run, std::uint32_t rank) {
  return fmt::format("lmq-journal-{:06}-{:06}", run, rank);
}

Spool::Spool(std::filesystem::path work_dir, JournalHeader header)
    : work_dir_(std::move(work_dir)), header_(std::move(header)) {}

Spool::~Spool() { end_flusher(); }

void Spool::discard() {
  {
    const std::lock_guard lock(mutex_);
    dirty_ = false;
  }
  end_flusher();
  spool_ = File();
  journal_ = File();
}

void Spool::end_flusher() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  changed_.notify_all();
  if (flusher_.joinable()) flusher_.join();
}

void Spool::open() {
  // The journal comes first: a spool is known as ours by the journal beside it.
  journal_ = File(work_dir_ / journal_name(header_.run, header_.rank), File::Mode::create_new);
  const std::vector<std::byte> header = header_.to_bytes();
  journal_.write(0, header);
  journal_end_ = header.size();
  spool_ = File(work_dir_ / spool_name(header_.run, header_.rank), File::Mode::create_new);
  sync_directory(work_dir_);
  flusher_ = std::thread([this] { flush_in_background(); });
}

void Spool::append(Finished& finished, std::span<const std::byte> payload) {
  if (!flusher_.joinable()) open();
  finished.place = {header_.run, header_.rank, spool_end_, payload.size(), digest64(payload)};
  if (!payload.empty()) spool_.write(spool_end_, payload);
  spool_end_ += payload.size();
  const std::vector<std::byte> entry = journal_entry(finished);
  journal_.write(journal_end_, entry);
  journal_end_ += entry.size();
  const std::lock_guard lock(mutex_);
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  dirty_ = true;
  unsynced_bytes_ += payload.size();
  if (unsynced_bytes_ >= kFlushBytes) changed_.notify_all();
}

void Spool::sync_files() {
  const std::lock_guard one_at_a_time(syncing_);
  {
    const std::lock_guard lock(mutex_);
    if (!std::exchange(dirty_, false)) return;
    unsynced_bytes_ = 0;
  }
  spool_.sync();
  journal_.sync();
}

void Spool::flush() {
  sync_files();
  const std::lock_guard lock(mutex_);
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void Spool::flush_in_background() {
  for (bool last = false; !last;) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, kFlushEvery, [&] { return closing_ || unsynced_bytes_ >= kFlushBytes; });
      last = closing_;
    }
    try {
      sync_files();
    } catch (...) {
      const std::lock_guard lock(mutex_);
      error_ = std::current_exception();
    }
  }
}

}  // namespace lmq
