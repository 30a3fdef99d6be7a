#include "lmq/run/work_dir.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>

#include "lmq/base/digest.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io/system_words.hpp"
#include "lmq/run/spool.hpp"

namespace lmq {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLockName = "lmq-lock";
constexpr std::string_view kJournalStart = "lmq-journal-", kSpoolStart = "lmq-spool-";

struct OurFile {
  fs::path path;
  bool journal = false;
  std::uint32_t run = 0, rank = 0;
};

/// lmq-spool-RRRRRR-KKKKKK and lmq-journal-RRRRRR-KKKKKK; nothing for any other name.
std::optional<OurFile> parse_name(const fs::path& path) {
  const std::string name = path.filename().string();
  OurFile file{path};
  std::size_t at = 0;
  if (name.starts_with(kJournalStart))
    file.journal = true, at = kJournalStart.size();
  else if (name.starts_with(kSpoolStart))
    at = kSpoolStart.size();
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

/// Files with names of ours, whosever they are.
std::vector<OurFile> files_named_as_ours(const fs::path& folder) {
  std::vector<OurFile> files;
  std::error_code problem;
  for (fs::directory_iterator entry(folder, problem), end; !problem && entry != end; entry.increment(problem))
    if (auto file = parse_name(entry->path())) files.push_back(std::move(*file));
  if (problem)
    fail(Errc::io, fmt::format("{}: cannot list the work directory: {}", printable(folder.string()),
                               system_words(problem.value())));
  std::sort(files.begin(), files.end(), [](const OurFile& a, const OurFile& b) { return a.path < b.path; });
  return files;
}

bool begins_as_journal(const fs::path& path) {
  std::error_code problem;
  if (!fs::is_regular_file(path, problem)) return false;
  const File file(path, File::Mode::read);
  std::vector<std::byte> bytes(std::min<std::uint64_t>(file.size(), kJournalMagicBytes));
  file.read(0, bytes);
  return can_be_journal(bytes);
}

/// Those that are ours: journals by how they begin, spools by the journal beside them.
std::vector<OurFile> our_files(const fs::path& folder) {
  std::vector<OurFile> files = files_named_as_ours(folder);
  std::set<std::pair<std::uint32_t, std::uint32_t>> journals;
  for (const OurFile& file : files)
    if (file.journal && begins_as_journal(file.path)) journals.insert({file.run, file.rank});
  std::erase_if(files, [&](const OurFile& file) { return !journals.contains({file.run, file.rank}); });
  return files;
}

}  // namespace

WorkDir::WorkDir(fs::path folder, const JournalHeader& now, bool resume, LockPatience lock)
    : folder_(std::move(folder)) {
  RunLock::Request request;
  request.path = folder_ / kLockName;
  request.makes_folder = true;  // runs that share it remove it, each at its end
  request.subject = fmt::format("the work directory {}", printable(folder_.string()));
  request.plan = now.plan_digest;
  request.patience = lock.patience;
  request.say = std::move(lock.say);
  input_stamp_ = now.input_stamp;
  try {
    std::error_code ignored;
    lock_.emplace(std::move(request));
    if (!resume)
      for (const OurFile& file : our_files(folder_)) fs::remove(file.path, ignored);
    for (const OurFile& file : files_named_as_ours(folder_)) run_ = std::max(run_, file.run + 1);
  } catch (...) {
    leave();
    throw;
  }
}

WorkDir::~WorkDir() {
  if (!lock_) return;  // removed
  try {
    remove_empty();
  } catch (...) {
    // What cannot be listed stays.
  }
  leave();
}

/// Lets others in; the folder goes when nothing is in it, but no link to one.
void WorkDir::leave() noexcept {
  lock_.reset();
  ::rmdir(folder_.c_str());
}

/// Files of runs that ended before anything was finished.
void WorkDir::remove_empty() const {
  const std::vector<OurFile> files = our_files(folder_);
  std::error_code ignored;
  for (const OurFile& file : files) {
    if (!file.journal) continue;
    bool empty = true;
    JournalContents about;
    scan_journal(File(file.path, File::Mode::read), about,
                 [&](Finished&&, std::uint64_t, std::uint32_t) { empty = false; });
    if (!empty) continue;
    fs::remove(folder_ / spool_name(file.run, file.rank), ignored);
    fs::remove(file.path, ignored);
  }
}

void WorkDir::each_result(const ResultUse& use) const {
  const std::vector<OurFile> files = our_files(folder_);
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::uint64_t> spool_bytes;
  for (const OurFile& file : files) {
    if (!file.journal) spool_bytes[{file.run, file.rank}] = stamp_of(file.path).bytes;
  }
  for (const OurFile& file : files) {
    if (!file.journal) continue;
    const std::uint64_t there = spool_bytes[{file.run, file.rank}];
    JournalContents about;
    scan_journal(File(file.path, File::Mode::read), about,
                 [&](Finished&& finished, std::uint64_t offset, std::uint32_t length) {
                   const SpoolPlace& place = finished.place;
                   if (about.version != kJournalVersion || place.run != file.run || place.rank != file.rank) return;
                   finished.same_input = about.header.input_stamp == input_stamp_;
                   if (place.offset <= there && place.length <= there - place.offset)
                     use(std::move(finished), {file.run, file.rank, offset, length});
                 });
  }
}

void WorkDir::remove() noexcept {
  try {
    std::error_code ignored;
    for (const OurFile& file : our_files(folder_)) fs::remove(file.path, ignored);
    leave();
  } catch (...) {
    // What cannot be listed cannot be removed; the output is whole all the same.
  }
}

bool is_name_of_work_dir(const std::string& name) { return name == kLockName || parse_name(name).has_value(); }

const File* SpoolFiles::open(const std::string& name) {
  if (const auto found = std::ranges::find(open_, name, &Open::name); found != open_.end()) return &found->file;
  constexpr std::size_t kMaxOpen = 64;  // a resumed run may have thousands of spools
  if (open_.size() >= kMaxOpen) open_.erase(open_.begin());
  try {
    open_.push_back({name, File(work_dir_ / name, File::Mode::read)});
  } catch (const Error& error) {
    if (error.code == Errc::missing) return nullptr;
    throw;
  }
  return &open_.back().file;
}

std::optional<Finished> SpoolFiles::read(const JournalPlace& place) {
  const std::string name = journal_name(place.run, place.rank);
  const File* const file = open(name);
  if (file == nullptr || place.offset + place.length > file->size()) return std::nullopt;
  std::vector<std::byte> bytes(place.length);
  file->read(place.offset, bytes);
  try {
    return Finished::from_bytes(bytes, name);
  } catch (const Error&) {  // other bytes than a moment ago
    return std::nullopt;
  }
}

std::span<const std::byte> SpoolFiles::read(const SpoolPlace& place, std::vector<std::byte>& buffer) {
  const File* const file = open(spool_name(place.run, place.rank));
  if (file == nullptr) return {};
  const std::uint64_t there = file->size();
  if (place.offset > there || place.length > there - place.offset) return {};
  if (buffer.size() < place.length) buffer.resize(place.length);
  const std::span<std::byte> bytes(buffer.data(), place.length);
  file->read(place.offset, bytes);
  return digest64(std::span<const std::byte>(bytes)) == place.digest ? std::span<const std::byte>(bytes)
                                                                     : std::span<const std::byte>();
}

}  // namespace lmq
