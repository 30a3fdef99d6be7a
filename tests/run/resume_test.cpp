#include <catch2/catch.hpp>
#include <random>

#include "lmq/run/comm.hpp"
#include "small_model.hpp"

using namespace lmq;
using namespace lmq::test;

namespace {

namespace fs = std::filesystem;

/// Runs until `results` results have come (0: to the end); true when it was interrupted.
bool run_until(const SmallRun& run, int ranks, std::uint64_t results, const std::string& output,
               RunReport* report = nullptr) {
  try {
    run_on_threads(ranks, [&](Comm& comm) {
      FlatFormat format;
      RunOptions options = run.options(output);
      if (results > 0) options.stop_after = [results](std::uint64_t done) { return done >= results; };
      RunReport mine = run_quantize(comm, run.reader(), nullptr, run.plan(), format, options);
      if (report && comm.rank() == 0) *report = std::move(mine);
    });
    return false;
  } catch (const Error& error) {
    if (error.code != Errc::interrupted) throw;
    return true;
  }
}

std::vector<fs::path> files_of(const fs::path& folder, const std::string& prefix) {
  std::vector<fs::path> files;
  if (fs::exists(folder))
    for (const auto& entry : fs::directory_iterator(folder))
      if (entry.path().filename().string().starts_with(prefix)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

struct Model {
  TempFolder folder;
  std::optional<SmallRun> run;
  std::vector<std::byte> expected;
  Model() {
    make_small_checkpoint(folder / "model.safetensors");
    run.emplace(folder / "model.safetensors", folder.path());
    run_until(*run, 1, 0, "expected");
    expected = read_file(folder / "expected");
  }
};

}  // namespace

TEST_CASE("resume: interrupted after any number of results and continued by other ranks, the bytes are the same",
          "[run][resume][slow]") {
  const Model model;
  std::mt19937 draw(5);
  bool interrupted = true;
  for (std::uint64_t results = 1; interrupted; results += 1 + results / 9) {
    const int before = 1 + static_cast<int>(draw() % 4), after = 1 + static_cast<int>(draw() % 4);
    CAPTURE(results, before, after);
    interrupted = run_until(*model.run, before, results, "out");
    if (interrupted) {
      REQUIRE_FALSE(fs::exists(model.folder / "out"));
      REQUIRE(fs::exists(model.folder / "out.work"));
      REQUIRE(files_of(model.folder.path(), "out.part").empty());
      REQUIRE_FALSE(run_until(*model.run, after, 0, "out"));
    }
    REQUIRE(read_file(model.folder / "out") == model.expected);
    REQUIRE_FALSE(fs::exists(model.folder / "out.work"));
    fs::remove(model.folder / "out");
  }
}

TEST_CASE("resume: many interruptions one after another lose nothing", "[run][resume]") {
  const Model model;
  int interruptions = 0;
  // A commit is begun anew, so the steps grow until it fits into one.
  for (std::uint64_t step = 5; run_until(*model.run, 1 + interruptions % 3, step, "out"); step += 3)
    REQUIRE(++interruptions < 200);
  REQUIRE(interruptions > 5);
  REQUIRE(read_file(model.folder / "out") == model.expected);
}

TEST_CASE("resume: what was finished is not done again", "[run][resume]") {
  const Model model;
  const std::uint64_t results = 30;
  REQUIRE(run_until(*model.run, 2, results, "out"));
  RunReport report;
  REQUIRE_FALSE(run_until(*model.run, 3, 0, "out", &report));
  REQUIRE(report.units_done + report.units_resumed == model.run->plan().units.size());
  REQUIRE(report.units_resumed > 0);
}

TEST_CASE("resume: journals torn at any byte, as a killed machine leaves them, give the same bytes",
          "[run][resume][slow]") {
  const Model model;
  std::mt19937 draw(9);
  for (int round = 0; round < 25; ++round) {
    CAPTURE(round);
    REQUIRE(run_until(*model.run, 1 + round % 3, 10 + draw() % 60, "out"));
    for (const fs::path& journal : files_of(model.folder / "out.work", "journal"))
      if (draw() % 3 != 0) fs::resize_file(journal, draw() % (fs::file_size(journal) + 1));
    if (draw() % 4 == 0)
      for (const fs::path& spool : files_of(model.folder / "out.work", "spool"))
        fs::resize_file(spool, draw() % (fs::file_size(spool) + 1));
    REQUIRE_FALSE(run_until(*model.run, 1 + static_cast<int>(draw() % 3), 0, "out"));
    REQUIRE(read_file(model.folder / "out") == model.expected);
    fs::remove(model.folder / "out");
  }
}

TEST_CASE("resume: bytes that changed in spools and journals are seen and made again", "[run][resume][slow]") {
  const Model model;
  std::mt19937 draw(13);
  for (int round = 0; round < 25; ++round) {
    CAPTURE(round);
    REQUIRE(run_until(*model.run, 2, 20 + draw() % 50, "out"));
    for (const char* kind : {"spool", "journal"})
      for (const fs::path& path : files_of(model.folder / "out.work", kind)) {
        auto bytes = read_file(path);
        for (int flips = 0; flips < 3 && !bytes.empty(); ++flips) bytes[draw() % bytes.size()] ^= std::byte{0x10};
        write_file(path, bytes);
      }
    REQUIRE_FALSE(run_until(*model.run, 1 + round % 2, 0, "out"));
    REQUIRE(read_file(model.folder / "out") == model.expected);
    fs::remove(model.folder / "out");
  }
}

TEST_CASE("resume: a spool that is gone is made again", "[run][resume]") {
  const Model model;
  REQUIRE(run_until(*model.run, 2, 50, "out"));
  for (const fs::path& spool : files_of(model.folder / "out.work", "spool")) fs::remove(spool);
  REQUIRE_FALSE(run_until(*model.run, 1, 0, "out"));
  REQUIRE(read_file(model.folder / "out") == model.expected);
}

TEST_CASE("resume: another plan's work is refused and kept; a changed input is not mixed with the old",
          "[run][resume]") {
  const Model model;
  REQUIRE(run_until(*model.run, 1, 20, "out"));
  const auto spools = files_of(model.folder / "out.work", "").size();
  const SmallRun other(model.folder / "model.safetensors", model.folder.path(), 7);
  const auto refused = [&](const SmallRun& run) {
    try {
      run_until(run, 2, 0, "out");
    } catch (const Error& error) {
      REQUIRE_THAT(error.what(), Catch::Contains("--resume never"));
      return error.code == Errc::usage;
    }
    return false;
  };
  REQUIRE(refused(other));
  make_small_checkpoint(model.folder / "model.safetensors");  // the same bytes, written anew
  REQUIRE(refused(SmallRun(model.folder / "model.safetensors", model.folder.path())));
  REQUIRE(files_of(model.folder / "out.work", "").size() == spools);
  const auto comm = make_self_comm();
  FlatFormat format;
  RunOptions options = other.options("out");
  options.resume = false;
  (void)run_quantize(*comm, SmallRun(model.folder / "model.safetensors", model.folder.path()).reader(), nullptr,
                     other.plan(), format, options);
  REQUIRE(fs::exists(model.folder / "out"));
}

TEST_CASE("resume: the time limit interrupts, and in the end the work is done", "[run][resume]") {
  const Model model;
  int interruptions = 0;
  for (bool again = true; again;) {
    try {
      const auto comm = make_self_comm();
      FlatFormat format;
      RunOptions options = model.run->options("out");
      options.max_minutes = 0.01 / 60 * (1 + interruptions);
      (void)run_quantize(*comm, model.run->reader(), nullptr, model.run->plan(), format, options);
      again = false;
    } catch (const AgreedError& error) {
      REQUIRE(error.code == Errc::interrupted);
      REQUIRE_THAT(error.what(), Catch::Contains("--max-time"));
      REQUIRE(++interruptions < 300);
    }
  }
  REQUIRE(read_file(model.folder / "out") == model.expected);
}
