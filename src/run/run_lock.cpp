#include "lmq/run/run_lock.hpp"

#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <optional>
#include <random>
#include <sstream>
#include <system_error>
#include <utility>

#include "lmq/base/digest.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io/system_words.hpp"
#include "lmq/run/signals.hpp"

namespace lmq {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

constexpr milliseconds kLookAgain{50}, kBeat{3000};
// A file without a word has just been made; its maker writes at once.
constexpr milliseconds kSilenceOfNewFile{1000};
// So long two machines that took the same file at once can see each other's words.
constexpr milliseconds kSettle{300};
constexpr std::uint64_t kMaxText = 4096;

std::string first_line(const char* path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

/// Start time of a process in clock ticks after boot (proc(5), field 22); 0: there is none.
std::uint64_t birth_of(const std::string& process) {
  const std::string stat = first_line(("/proc/" + process + "/stat").c_str());
  const std::size_t name_end = stat.rfind(')');
  if (name_end == std::string::npos) return 0;
  std::istringstream fields(stat.substr(name_end + 1));
  std::string skipped;
  constexpr int kBetween = 19;  // fields 3 .. 21
  for (int i = 0; i < kBetween; ++i) fields >> skipped;
  std::uint64_t born = 0;
  fields >> born;
  return born;
}

LockWords my_words(const std::string& plan) {
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  std::error_code ignored;
  LockWords words;
  words.who = fmt::format("process {} on {}", getpid(), host);
  words.kernel = first_line("/proc/sys/kernel/random/boot_id");
  words.pids = fs::read_symlink("/proc/self/ns/pid", ignored).string();
  words.pid = static_cast<std::uint64_t>(getpid());
  words.born = birth_of("self");
  std::random_device draw;
  words.run = hex(std::uint64_t{draw()} << 32 | draw());
  words.plan = plan;
  return words;
}

}  // namespace

RunLock::RunLock(Request request) : request_(std::move(request)), words_(my_words(request_.plan)) {
  try {
    wait_until_taken();
  } catch (...) {
    std::error_code ignored;
    if (created_) fs::remove(request_.path, ignored);
    throw;
  }
  if (finished_by_.empty()) beater_ = std::thread([this] { beat(); });
}

RunLock::~RunLock() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  changed_.notify_all();
  if (beater_.joinable()) beater_.join();
  if (finished_by_.empty()) release();
}

void RunLock::say(const std::string& text) const {
  if (request_.say) request_.say(text);
}

void RunLock::wait_until_taken() {
  const auto deadline = Clock::now() + request_.patience;
  for (;;) {
    const Look seen = look();
    if (seen == Look::taken) return;
    if (SignalGuard::raised() != 0)
      fail(Errc::interrupted, "interrupted by a signal: run the same command again to continue");
    if (Clock::now() > deadline)
      fail(Errc::cannot_create, fmt::format("{}: {} is at work on it: wait for its end, or stop it", request_.subject,
                                            busy_.empty() ? "another run" : busy_));
    if (seen == Look::again) continue;
    if (!std::exchange(waited_, true) && request_.patience > kLookAgain)
      say(fmt::format("{}: {} is at work on it; waiting up to {} for its end", request_.subject,
                      busy_.empty() ? "another run" : busy_,
                      format_duration(std::chrono::duration<double>(request_.patience).count())));
    std::this_thread::sleep_for(kLookAgain);
  }
}

/// False when it is to be tried again: a holder that goes may take the name, and the folder, away at any moment.
bool RunLock::open() {
  constexpr int kInARow = 100;  // so often no holders come and go while one opens
  created_ = false;
  if (request_.makes_folder) make_folder();
  try {
    if (auto made = File::make_new(request_.path)) {
      file_ = std::move(*made);
      created_ = true;
    } else {
      file_ = File(request_.path, File::Mode::update);
    }
  } catch (const Error& error) {
    if (error.code == Errc::io || ++failures_ >= kInARow) throw;
    return false;
  }
  failures_ = 0;
  return true;
}

void RunLock::make_folder() const {
  std::error_code problem;
  fs::create_directories(request_.path.parent_path(), problem);
  if (problem)
    fail(out_of_descriptors(problem.value()) ? Errc::io : Errc::cannot_create,
         fmt::format("{}: cannot be made: {}", request_.subject, system_words(problem.value())));
}

RunLock::Look RunLock::look() {
  if (file_.fd() < 0 && !open()) return Look::again;
  const int locked = ::flock(file_.fd(), LOCK_EX | LOCK_NB);
  const int problem = locked == 0 ? 0 : errno;
  if (problem == EINTR) return Look::again;
  const LockWords there = read(file_);
  if (problem == EWOULDBLOCK) {
    remember_holder(there);
    created_ = false;  // others have found it first
    if (!names_our_file()) file_ = File();
    return Look::busy;
  }
  if (problem != 0 && !std::exchange(no_locks_, true))
    say(
        fmt::format("{}: this file system has no locks ({}); whether another run is at work is told by what the file "
                    "says",
                    printable(request_.path.string()), std::generic_category().message(problem)));
  if (!names_our_file()) {  // its holder has removed it
    file_ = File();
    if (waited_ && request_.content_with_others && there.finished && there.plan == words_.plan) {
      finished_by_ = printable(there.who);
      return Look::taken;
    }
    return Look::again;
  }
  if (!created_ && lives(there)) {
    remember_holder(there);
    if (!no_locks_) (void)::flock(file_.fd(), LOCK_UN);
    return Look::busy;
  }
  words_.parts = there.parts;
  const bool sure = !no_locks_ && (created_ || there.kernel == words_.kernel || there.who.empty());
  write();
  if (sure) return Look::taken;
  std::this_thread::sleep_for(kSettle);
  if (read_anew().run == words_.run) return Look::taken;
  file_ = File();
  return Look::again;
}

/// A file that is read while it is written may name nobody; whom it named before holds it still.
void RunLock::remember_holder(const LockWords& there) {
  if (!there.who.empty()) busy_ = printable(there.who);
}

/// Whether the holder that the file names is at work, though the system's lock is free. `there` may be older than the
/// file: its emptiness counts, not the file's present size.
bool RunLock::lives(const LockWords& there) {
  if (there.run.empty()) return counts(there, kSilenceOfNewFile);
  if (there.who.empty()) return false;
  if (there.kernel != words_.kernel) return counts(read_anew(), request_.silence);
  if (!no_locks_) return false;
  if (there.pids != words_.pids) return counts(there, request_.silence);
  return birth_of(std::to_string(there.pid)) == there.born;
}

/// Whether these words are others than the last ones, or were first seen less than `silence` ago.
bool RunLock::counts(const LockWords& there, milliseconds silence) {
  const std::string text = there.text();
  if (std::exchange(watched_, text) != text) watched_since_ = Clock::now();
  return Clock::now() - watched_since_ < silence;
}

LockWords RunLock::read(const File& file) const {
  std::string text(std::min(file.size(), kMaxText), '\0');
  try {
    file.read(0, std::as_writable_bytes(std::span(text)));
  } catch (const Error&) {
    text.clear();  // it was made shorter meanwhile
  }
  bool ours = false;
  LockWords words = LockWords::parse(text, ours);
  if (!ours)
    fail(Errc::cannot_create, fmt::format("{}: is in the way: this name is that of a lock file, but what it holds is "
                                          "none",
                                          printable(request_.path.string())));
  return words;
}

/// What the name says now, opened anew: some network file systems look again only then. Nothing (empty) when it has
/// gone; as the open file says where there are too few descriptors for a second one.
LockWords RunLock::read_anew() const {
  try {
    return read(File(request_.path, File::Mode::read));
  } catch (const Error& error) {
    if (error.code == Errc::missing) return {};
    if (error.code != Errc::io || !names_our_file()) throw;
    return read(file_);
  }
}

bool RunLock::names_our_file() const {
  struct stat ours {
  }, named{};
  return ::fstat(file_.fd(), &ours) == 0 && ::stat(request_.path.c_str(), &named) == 0 && ours.st_dev == named.st_dev &&
         ours.st_ino == named.st_ino;
}

void RunLock::check_held() const {
  std::string other = "another run";
  try {
    const LockWords there = read_anew();
    if (there.run == words_.run) return;
    if (!there.who.empty()) other = printable(there.who);
  } catch (const Error&) {
    // It cannot be read.
  }
  fail(Errc::cannot_create,
       fmt::format("{}: {} has taken over: this run stood still for too long", request_.subject, other));
}

std::vector<std::string> RunLock::parts() const {
  const std::lock_guard lock(mutex_);
  return words_.parts;
}

void RunLock::set_parts(std::vector<std::string> parts) {
  const std::lock_guard lock(mutex_);
  words_.parts = std::move(parts);
  write();
}

/// The caller holds the mutex, or is alone.
void RunLock::write() const {
  const std::string text = words_.text();
  file_.write(0, std::as_bytes(std::span(text)));
  file_.truncate(text.size());
  file_.sync();
}

void RunLock::beat() {
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, kBeat, [&] { return closing_; })) {
    ++words_.beat;
    try {
      write();
    } catch (const Error&) {
      // Whoever waits on another machine may take over; check_held tells before anything is renamed.
    }
  }
}

void RunLock::release() noexcept {
  try {
    if (read_anew().run != words_.run) return;
    std::error_code ignored;
    const fs::path folder = request_.path.parent_path();
    const bool keep =
        std::ranges::any_of(words_.parts, [&](const std::string& part) { return fs::exists(folder / part, ignored); });
    words_.finished = finished_;
    if (keep) words_.who.clear();
    write();
    if (!keep) fs::remove(request_.path, ignored);
  } catch (...) {
    // What cannot be written or removed stays; the system's lock ends here all the same.
  }
}

}  // namespace lmq
