#include <sys/file.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <csignal>
#include <optional>
#include <thread>

#include "io/make_safetensors.hpp"
#include "lmq/base/error.hpp"
#include "lmq/run/run_lock.hpp"
#include "part_file.hpp"

using namespace lmq;
using namespace lmq::test;
using namespace std::chrono_literals;

namespace {
std::atomic<int> flock_problem = 0;  // errno of every flock, 0: as the system does it
}

/// In place of the system's, for file systems without locks.
extern "C" int flock(int fd, int operation) noexcept {
  if (flock_problem == 0) return static_cast<int>(syscall(SYS_flock, fd, operation));
  errno = flock_problem;
  return -1;
}

namespace {

namespace fs = std::filesystem;

RunLock::Request request(const fs::path& path, std::chrono::milliseconds patience = 100ms) {
  RunLock::Request request;
  request.path = path;
  request.subject = "out.h5";
  request.plan = "plan";
  request.patience = patience;
  return request;
}

/// The error of a start, code 0 when it got the lock.
Error refusal(RunLock::Request wanted) {
  try {
    const RunLock lock(std::move(wanted));
  } catch (const Error& error) {
    return error;
  }
  return {Errc{0}, ""};
}

LockWords words_in(const fs::path& path) {
  const auto bytes = read_file(path);
  bool ours = false;
  LockWords words = LockWords::parse({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, ours);
  REQUIRE(ours);
  return words;
}

/// What a run on another machine has left, or writes again and again.
LockWords foreign_words() {
  LockWords words;
  words.who = "process 7 on elsewhere";
  words.kernel = "another boot";
  words.pid = 7;
  words.run = "00000000000000aa";
  words.parts = {"out.h5.part-00000000000000aa"};
  return words;
}

}  // namespace

TEST_CASE("lock: one run at a time; the other is told who, and nothing is left in the end", "[run][lock]") {
  const TempFolder folder;
  const fs::path path = folder / "out.h5.lmq-lock";
  {
    const RunLock first(request(path));
    const Error error = refusal(request(path));
    REQUIRE(error.code == Errc::cannot_create);
    REQUIRE_THAT(error.what(), Catch::StartsWith("out.h5: process " + std::to_string(getpid()) + " on "));
    REQUIRE(words_in(path).run == first.run());
  }
  REQUIRE(fs::is_empty(folder.path()));
  REQUIRE(refusal(request(path)).code == Errc{0});
}

TEST_CASE("lock: of many that wait one holds it at any time, though each removes the file when it goes",
          "[run][lock][slow]") {
  const TempFolder folder;
  std::atomic<int> holders = 0, most = 0, turns = 0;
  std::vector<std::thread> runs;
  for (int run = 0; run < 6; ++run)
    runs.emplace_back([&] {
      for (int turn = 0; turn < 15; ++turn) {
        const RunLock lock(request(folder / "lock", 60s));
        most = std::max<int>(most, ++holders);
        std::this_thread::sleep_for(1ms);
        ++turns;
        --holders;
      }
    });
  for (std::thread& run : runs) run.join();
  REQUIRE(most == 1);
  REQUIRE(turns == 6 * 15);
  REQUIRE(fs::is_empty(folder.path()));
}

TEST_CASE("lock: who waited learns that the same plan was finished, and by whom; another plan goes on", "[run][lock]") {
  const TempFolder folder;
  const bool same_plan = GENERATE(true, false), done = GENERATE(true, false), content = GENERATE(true, false);
  CAPTURE(same_plan, done, content);
  std::optional<RunLock> first(std::in_place, request(folder / "lock"));
  std::atomic<bool> told = false;
  std::string finished_by;
  std::thread second([&] {
    RunLock::Request wanted = request(folder / "lock", 60s);
    if (!same_plan) wanted.plan = "another";
    wanted.content_with_others = content;
    wanted.say = [&](const std::string&) { told = true; };
    const RunLock lock(std::move(wanted));
    finished_by = lock.finished_by();
  });
  while (!told) std::this_thread::yield();
  if (done) first->set_finished();
  first.reset();
  second.join();
  REQUIRE(finished_by.empty() == !(same_plan && done && content));
  if (!finished_by.empty()) REQUIRE_THAT(finished_by, Catch::StartsWith("process " + std::to_string(getpid())));
}

TEST_CASE("lock: a killed run does not hold it, and what it may have left is known to the next", "[run][lock]") {
  const TempFolder folder;
  const fs::path path = folder / "lock";
  const pid_t child = fork();
  if (child == 0) {
    RunLock held(request(path));
    held.set_parts({"out.h5.part-" + held.run()});
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  waitpid(child, &status, 0);
  REQUIRE(WIFSIGNALED(status));
  const LockWords left = words_in(path);
  REQUIRE(left.pid == static_cast<std::uint64_t>(child));
  const RunLock next(request(path, 0ms));
  REQUIRE(next.parts() == left.parts);
  REQUIRE(next.run() != left.run);
}

TEST_CASE("lock: as long as an unfinished file lies beside it, it stays for the next run to find", "[run][lock]") {
  const TempFolder folder;
  write_file(folder / "part", "half");
  {
    RunLock lock(request(folder / "lock"));
    lock.set_parts({"gone", "part"});
  }
  REQUIRE(words_in(folder / "lock").who.empty());
  {
    const RunLock lock(request(folder / "lock", 0ms));
    REQUIRE(lock.parts() == std::vector<std::string>{"gone", "part"});
    fs::remove(folder / "part");
  }
  REQUIRE(fs::is_empty(folder.path()));
}

TEST_CASE("lock: a run on another machine is at work as long as its file counts up, whatever the system's lock says",
          "[run][lock]") {
  const TempFolder folder;
  const fs::path path = folder / "lock";
  std::atomic<bool> ended = false;
  LockWords words = foreign_words();
  write_file(path, words.text());
  std::thread other([&] {
    while (!ended) {
      ++words.beat;
      write_file(path, words.text());
      std::this_thread::sleep_for(20ms);
    }
  });
  RunLock::Request wanted = request(path, 1500ms);
  wanted.silence = 1000ms;
  const Error error = refusal(wanted);
  ended = true;
  other.join();
  REQUIRE(error.code == Errc::cannot_create);
  REQUIRE_THAT(error.what(), Catch::Contains("process 7 on elsewhere"));
  // Now it is silent.
  const RunLock lock(wanted);
  REQUIRE(lock.parts() == words.parts);
  REQUIRE_NOTHROW(lock.check_held());
}

TEST_CASE("lock: a run that was taken for dead learns it before it renames anything, and leaves the other's file",
          "[run][lock]") {
  const TempFolder folder;
  const fs::path path = folder / "lock";
  {
    const RunLock lock(request(path));
    REQUIRE_NOTHROW(lock.check_held());
    write_file(path, foreign_words().text());
    try {
      lock.check_held();
      FAIL("not noticed");
    } catch (const Error& error) {
      REQUIRE(error.code == Errc::cannot_create);
      REQUIRE_THAT(error.what(), Catch::Contains("process 7 on elsewhere"));
    }
  }
  REQUIRE(words_in(path).run == foreign_words().run);
}

TEST_CASE("lock: a file of the user's in its place is refused and not touched; an empty one is taken", "[run][lock]") {
  const TempFolder folder;
  const fs::path path = folder / "lock";
  write_file(path, "my notes");
  const auto before = read_file(path);
  const Error error = refusal(request(path));
  REQUIRE(error.code == Errc::cannot_create);
  REQUIRE_THAT(error.what(), Catch::Contains((folder / "lock").string()));
  REQUIRE(read_file(path) == before);
  write_file(path, "");
  REQUIRE(refusal(request(path, 10s)).code == Errc{0});
  REQUIRE(refusal(request(folder / "nowhere" / "lock")).code == Errc::cannot_create);
}

TEST_CASE("lock: on a file system without locks the file tells who is at work, and this is said", "[run][lock]") {
  const TempFolder folder;
  const fs::path path = folder / "lock";
  struct WithoutLocks {
    explicit WithoutLocks(int problem) { flock_problem = problem; }
    ~WithoutLocks() { flock_problem = 0; }
  };
  const int problem = GENERATE(ENOLCK, EOPNOTSUPP, ENOSYS);
  const WithoutLocks without(problem);
  std::string told;
  RunLock::Request wanted = request(path, 1s);
  wanted.say = [&](const std::string& text) { told += text + "\n"; };
  {
    const RunLock first(wanted);
    REQUIRE_THAT(told, Catch::Contains("no locks") && Catch::Contains((folder / "lock").string()));
    const Error error = refusal(request(path));
    REQUIRE(error.code == Errc::cannot_create);
    REQUIRE_THAT(error.what(), Catch::Contains("process " + std::to_string(getpid()) + " on "));
    REQUIRE_NOTHROW(first.check_held());
  }
  REQUIRE(fs::is_empty(folder.path()));
  const pid_t child = fork();
  if (child == 0) {
    const RunLock held(request(path));
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  waitpid(child, &status, 0);
  REQUIRE(fs::exists(path));
  REQUIRE(refusal(request(path, 1s)).code == Errc{0});  // its process is gone
}

TEST_CASE("part file: only names that runs of this output draw are taken for one", "[run][lock]") {
  const fs::path output = "some/where/out.h5";
  const std::string run = "0123456789abcdef", other = "fedcba9876543210";
  const fs::path part = part_path(output, run, other);
  REQUIRE(part.parent_path() == output.parent_path());
  REQUIRE(origin_of_part(output, part.filename().string()) == run);
  REQUIRE(origin_of_part("another.h5", part.filename().string()).empty());
  for (const std::string name :
       {"out.h5", "out.h5.part-", "out.h5.part-0123456789abcdef", "out.h5.part-0123456789abcdef-fedcba987654321",
        "out.h5.part-0123456789abcdef-fedcba98765432100", "out.h5.part-0123456789abcdef_fedcba9876543210",
        "out.h5.part-0123456789ABCDEF-fedcba9876543210", "out.h5.part-my own numbers is-fedcba9876543210"})
    REQUIRE(origin_of_part(output, name).empty());
}

TEST_CASE("lock: its words are read back; any text is read", "[run][lock]") {
  LockWords words = foreign_words();
  words.pids = "pid:[4026531836]";
  words.born = 123456789;
  words.beat = 42;
  words.plan = "0123abcd";
  words.finished = true;
  words.parts.push_back("a name with spaces");
  bool ours = false;
  const std::string text = words.text();
  REQUIRE(LockWords::parse(text, ours).text() == text);
  REQUIRE(LockWords::parse(text + "part left of a longer text\n", ours).text() == text);
  for (std::size_t length = 0; length <= text.size(); ++length) {
    (void)LockWords::parse(text.substr(0, length), ours);
    REQUIRE(ours);
  }
  (void)LockWords::parse(std::string("lmq lock 1\nwho\n\n\nbeat x\npid 99999999999999999999999\n\0end", 50), ours);
  REQUIRE(ours);
  (void)LockWords::parse("{\"model\": 1}", ours);
  REQUIRE_FALSE(ours);
}
