#include <sys/wait.h>
#include <unistd.h>
#include <atomic>
#include <catch2/catch.hpp>
#include <thread>

#include "io/make_safetensors.hpp"
#include "lmq/run/spool.hpp"
#include "lmq/run/work_dir.hpp"

using namespace lmq;
using namespace lmq::test;

namespace {

JournalHeader header(std::uint32_t run, std::uint32_t rank) { return {run, rank, "plan", "stamp"}; }

std::vector<std::byte> payload(std::size_t number) {
  return std::vector<std::byte>(1 + number * 37 % 500, static_cast<std::byte>(number));
}

/// Appends `count` records to the spool of a rank.
void fill(const std::filesystem::path& folder, std::uint32_t run, std::uint32_t rank, std::size_t count) {
  Spool spool(folder, header(run, rank));
  for (std::size_t i = 0; i < count; ++i) {
    Finished finished;
    finished.key = {TaskKind::quantize, i, 0};
    spool.append(finished, payload(i));
  }
  spool.flush();
}

std::vector<Finished> results_of(const WorkDir& work) {
  std::vector<Finished> results;
  work.each_result([&](Finished&& finished, const JournalPlace&) { results.push_back(std::move(finished)); });
  return results;
}

Errc code_of(const std::function<void()>& body, std::string* text = nullptr) {
  try {
    body();
  } catch (const Error& error) {
    if (text) *text = error.what();
    return error.code;
  }
  return Errc{0};
}

}  // namespace

TEST_CASE("spool: what was appended is found again, with its bytes, in any number of runs", "[run][spool]") {
  const TempFolder folder;
  const auto home = folder / "work";
  std::filesystem::create_directory(home);
  for (std::uint32_t run = 1; run <= 3; ++run) {
    fill(home, run, 0, 5);
    fill(home, run, 7, run);
    WorkDir work(home, header(0, 0), true);
    REQUIRE(work.run() == run + 1);
    REQUIRE(results_of(work).size() == 5 * run + run * (run + 1) / 2);
    SpoolFiles files(home);
    std::vector<std::byte> buffer;
    for (const Finished& finished : results_of(work)) {
      const auto bytes = files.read(finished.place, buffer);
      REQUIRE(std::ranges::equal(bytes, payload(finished.key.subject)));
    }
  }
  WorkDir work(home, header(0, 0), true);
  work.remove();
  REQUIRE_FALSE(std::filesystem::exists(home));
}

TEST_CASE("spool: nothing is written before there is something to keep", "[run][spool]") {
  const TempFolder folder;
  { Spool spool(folder.path(), header(1, 0)); }
  REQUIRE(std::filesystem::is_empty(folder.path()));
}

TEST_CASE("spool: entries whose payload is cut off are not taken, flipped payloads are seen", "[run][spool]") {
  const TempFolder folder;
  fill(folder.path(), 1, 0, 10);
  const auto spool = folder / spool_name(1, 0);
  auto bytes = read_file(spool);
  bytes[0] ^= std::byte{1};
  bytes.resize(bytes.size() - 1);
  write_file(spool, bytes);
  WorkDir work(folder.path(), header(0, 0), true);
  REQUIRE(results_of(work).size() == 9);
  SpoolFiles files(folder.path());
  std::vector<std::byte> buffer;
  for (const Finished& finished : results_of(work))
    REQUIRE(files.read(finished.place, buffer).empty() == (finished.key.subject == 0));
  const SpoolPlace place = results_of(work)[1].place;
  std::filesystem::remove(spool);
  SpoolFiles fresh(folder.path());
  REQUIRE(fresh.read(place, buffer).empty());
}

TEST_CASE("work directory: results of another plan are read, too; those of another input are marked", "[run][spool]") {
  const TempFolder folder;
  fill(folder.path(), 1, 0, 3);
  REQUIRE(results_of(WorkDir(folder.path(), {0, 0, "other", "stamp"}, true)).size() == 3);
  WorkDir changed(folder.path(), {0, 0, "plan", "changed"}, true);
  REQUIRE(results_of(changed).size() == 3);
  for (const Finished& finished : results_of(changed)) REQUIRE_FALSE(finished.same_input);
}

TEST_CASE("work directory: journals in which nothing is do not stay, nor does the folder", "[run][spool]") {
  const TempFolder folder;
  {
    const WorkDir work(folder / "work", header(0, 0), true);
    write_file(folder / "work" / journal_name(1, 0), header(1, 0).to_bytes());
    write_file(folder / "work" / spool_name(1, 0), "begun");
  }
  REQUIRE_FALSE(std::filesystem::exists(folder / "work"));
  {
    const WorkDir work(folder / "work", header(0, 0), true);
    fill(folder / "work", 1, 0, 1);
  }
  REQUIRE(std::filesystem::exists(folder / "work" / spool_name(1, 0)));
  REQUIRE_FALSE(std::filesystem::exists(folder / "work" / "lmq-lock"));
}

TEST_CASE("work directory: starting anew removes our files and no others", "[run][spool]") {
  const TempFolder folder;
  fill(folder.path(), 1, 0, 3);
  for (const char* name : {"notes.txt", "spool-1", "lmq-journal-000001-000000.bak", "lmq-journal-x-y",
                           "lmq-spool-000001-0000001", "lmq-spool-000009-000000", "lmq-journal-000008-000000", "lock"})
    write_file(folder / name, "mine");
  {
    WorkDir work(folder.path(), {0, 0, "other", "stamp"}, false);
    REQUIRE(results_of(work).empty());
    REQUIRE(work.run() == 10);  // above every file of such a name
    REQUIRE_FALSE(std::filesystem::exists(folder / spool_name(1, 0)));
    work.remove();
  }
  std::vector<std::string> left;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) left.push_back(entry.path().filename());
  std::sort(left.begin(), left.end());
  REQUIRE(left == std::vector<std::string>{"lmq-journal-000001-000000.bak", "lmq-journal-000008-000000",
                                           "lmq-journal-x-y", "lmq-spool-000001-0000001", "lmq-spool-000009-000000",
                                           "lock", "notes.txt", "spool-1"});
}

TEST_CASE("work directory: two runs do not share it, and a killed one does not lock it", "[run][spool][slow]") {
  const TempFolder folder;
  {
    const WorkDir first(folder.path(), header(0, 0), true);
    std::string text;
    REQUIRE(code_of(
                [&] {
                  WorkDir(folder.path(), header(0, 0), true, {std::chrono::milliseconds(100), {}});
                },
                &text) == Errc::cannot_create);
    REQUIRE_THAT(text, Catch::Contains("process " + std::to_string(getpid())));
  }
  const pid_t child = fork();
  if (child == 0) {
    WorkDir held(folder.path(), header(0, 0), true);
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  waitpid(child, &status, 0);
  REQUIRE(WIFSIGNALED(status));
  REQUIRE_NOTHROW(WorkDir(folder.path(), header(0, 0), true, {std::chrono::milliseconds(100), {}}));
}

TEST_CASE("work directory: of many that share one each has it in turn, though each removes it when it goes",
          "[run][spool]") {
  const TempFolder folder;
  std::atomic<int> holders = 0, most = 0, turns = 0;
  std::vector<std::thread> runs;
  for (int run = 0; run < 6; ++run)
    runs.emplace_back([&, run] {
      for (int turn = 0; turn < 10; ++turn) {
        WorkDir work(folder / "deep" / "work", {}, true, {std::chrono::minutes(2), {}});
        most = std::max<int>(most, ++holders);
        ++turns;
        --holders;
        if ((run + turn) % 2 == 0) work.remove();
      }
    });
  for (std::thread& run : runs) run.join();
  REQUIRE(most == 1);
  REQUIRE(turns == 6 * 10);
  REQUIRE(!std::filesystem::exists(folder / "deep" / "work"));
}

TEST_CASE("work directory: a link to a folder stays, and so does that folder", "[run][spool]") {
  const TempFolder folder;
  std::filesystem::create_directory(folder / "far");
  std::filesystem::create_directory_symlink(folder / "far", folder / "work");
  for (const bool done : {false, true}) {
    WorkDir work(folder / "work", {}, true);
    if (done) work.remove();
  }
  REQUIRE(std::filesystem::is_directory(folder / "work"));
  REQUIRE(std::filesystem::is_empty(folder / "work"));
}

TEST_CASE("work directory: a place where nothing can be made says so", "[run][spool]") {
  const TempFolder folder;
  write_file(folder / "file", "not a folder");
  REQUIRE(code_of([&] { WorkDir(folder / "file" / "work", header(0, 0), true); }) == Errc::cannot_create);
  REQUIRE(code_of([&] { WorkDir(folder / "file", header(0, 0), true); }) == Errc::cannot_create);
}
