#include "lmq/run/work_dir.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <map>
#include <optional>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include "lmq/base/digest.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/run/spool.hpp"

namespace lmq {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLockName = "lock";

struct OurFile {
  fs::path path;
  bool journal = false;
  std::uint32_t run = 0, rank = 0;
};

/// spool-RRRRRR-KKKKKK and journal-RRRRRR-KKKKKK; nothing for any other name.
std::optional<OurFile> parse_name(const fs::path& path) {
  const std::string name = path.filename().string();
  OurFile file{path};
  std::size_t at = 0;
  if (name.starts_with("journal-"))
    file.journal = true, at = 8;
  else if (name.starts_with("spool-"))
    at = 6;
  else
    return std::nullopt;
  const char* end = name.data() + name.size();
  const auto first = std::from_chars(name.data() + at, end, file.run);
  if (first.ec != std::errc() || first.ptr == end || *first.ptr != '-') return std::nullopt;
  const auto second = std::from_chars(first.ptr + 1, end, file.rank);
  if (second.ec != std::errc() || second.ptr != end) return std::nullopt;
  const std::string back = file.journal ? journal_name(file.run, file.rank) : spool_name(file.run, file.rank);
  return back == name ? std::optional(file) : std::nullopt;
}

std::vector<OurFile> our_files(const fs::path& folder) {
  std::vector<OurFile> files;
  std::error_code problem;
  for (fs::directory_iterator entry(folder, problem), end; !problem && entry != end; entry.increment(problem))
    if (auto file = parse_name(entry->path())) files.push_back(std::move(*file));
  if (problem)
    fail(Errc::io, fmt::format("{}: cannot list the work directory: {}", folder.string(), problem.message()));
  std::sort(files.begin(), files.end(), [](const OurFile& a, const OurFile& b) { return a.path < b.path; });
  return files;
}

std::vector<std::byte> whole(const fs::path& path) {
  const File file(path, File::Mode::read);
  std::vector<std::byte> bytes(file.size());
  file.read(0, bytes);
  return bytes;
}

void refuse_other_work(const JournalContents& journal, const JournalHeader& now, const fs::path& path) {
  constexpr const char* kAdvice = "give another --work-dir, or --resume never to throw it away";
  const JournalHeader& then = journal.header;
  if (journal.version != kJournalVersion || then.plan_digest != now.plan_digest)
    fail(Errc::usage,
         fmt::format("{}: belongs to other work (plan {}, version {}; now plan {}, version {}); {}", path.string(),
                     printable(then.plan_digest), journal.version, now.plan_digest, kJournalVersion, kAdvice));
  if (then.input_stamp != now.input_stamp)
    fail(Errc::usage, fmt::format("{}: the input's files have been changed since (other sizes or times); {}",
                                  path.string(), kAdvice));
}

/// The rest of a killed run may need a while to go.
bool take_lock(const File& file, std::chrono::milliseconds patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (flock(file.fd(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return true;  // no locks on this file system
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return true;
}

std::string who_i_am() {
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  return fmt::format("process {} on {}\n", getpid(), host);
}

}  // namespace

WorkDir::WorkDir(fs::path folder, const JournalHeader& now, bool resume, std::chrono::milliseconds patience)
    : folder_(std::move(folder)) {
  std::error_code problem;
  fs::create_directories(folder_, problem);
  if (problem)
    fail(Errc::cannot_create,
         fmt::format("{}: cannot make the work directory: {}", folder_.string(), problem.message()));
  lock(patience);
  if (!resume)
    for (const OurFile& file : our_files(folder_)) fs::remove(file.path, problem);
  read_journals(now);
}

void WorkDir::lock(std::chrono::milliseconds patience) {
  lock_ = File(folder_ / kLockName, File::Mode::append);
  if (!take_lock(lock_, patience)) {
    std::vector<std::byte> text(std::min<std::uint64_t>(lock_.size(), 300));
    lock_.read(0, text);
    std::string who(reinterpret_cast<const char*>(text.data()), text.size());
    who = who.substr(0, who.find('\n'));
    fail(Errc::usage, fmt::format("{}: {} is at work here; wait for it or give another --work-dir", folder_.string(),
                                  who.empty() ? "another run" : printable(who)));
  }
  const std::string me = who_i_am();
  lock_.truncate(0);
  lock_.write(0, std::as_bytes(std::span(me)));
}

void WorkDir::read_journals(const JournalHeader& now) {
  const std::vector<OurFile> files = our_files(folder_);
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::uint64_t> spool_bytes;
  for (const OurFile& file : files) {
    run_ = std::max(run_, file.run + 1);
    if (!file.journal) spool_bytes[{file.run, file.rank}] = stamp_of(file.path).bytes;
  }
  for (const OurFile& file : files) {
    if (!file.journal) continue;
    JournalContents journal = read_journal(whole(file.path), file.path.string());
    if (!journal.readable) continue;
    refuse_other_work(journal, now, file.path);
    const std::uint64_t there = spool_bytes[{file.run, file.rank}];
    for (Finished& finished : journal.entries) {
      const SpoolPlace& place = finished.place;
      if (place.run != file.run || place.rank != file.rank) continue;
      if (place.offset <= there && place.length <= there - place.offset) results_.push_back(std::move(finished));
    }
  }
}

void WorkDir::remove() noexcept {
  try {
    std::error_code ignored;
    for (const OurFile& file : our_files(folder_)) fs::remove(file.path, ignored);
    fs::remove(folder_ / kLockName, ignored);
    fs::remove(folder_, ignored);  // only when empty
  } catch (...) {
    // What cannot be listed cannot be removed; the output is whole all the same.
  }
}

std::span<const std::byte> SpoolFiles::read(const SpoolPlace& place, std::vector<std::byte>& buffer) {
  auto found = std::find_if(open_.begin(), open_.end(),
                            [&](const Open& open) { return open.run == place.run && open.rank == place.rank; });
  if (found == open_.end()) {
    const fs::path path = work_dir_ / spool_name(place.run, place.rank);
    constexpr std::size_t kMostOpen = 64;  // a resumed run may have thousands of spools
    if (open_.size() >= kMostOpen) open_.erase(open_.begin());
    try {
      open_.push_back({place.run, place.rank, File(path, File::Mode::read)});
    } catch (const Error& error) {
      if (error.code == Errc::missing) return {};
      throw;
    }
    found = std::prev(open_.end());
  }
  const std::uint64_t there = found->file.size();
  if (place.offset > there || place.length > there - place.offset) return {};
  if (buffer.size() < place.length) buffer.resize(place.length);
  const std::span<std::byte> bytes(buffer.data(), place.length);
  found->file.read(place.offset, bytes);
  return digest64(std::span<const std::byte>(bytes)) == place.digest ? std::span<const std::byte>(bytes)
                                                                     : std::span<const std::byte>();
}

}  // namespace lmq
