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
      REQUIRE(files_of(model.folder.path(), "out.part").size() <= 1);  // once it is being copied
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
  // What was copied is read back by one run, so the steps grow until that fits.
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

TEST_CASE("resume: another plan takes what is the same in both, and makes what it would have made alone",
          "[run][resume]") {
  const Model model;
  // Units of other rows, but for the tensor that is one unit in both.
  const SmallRun other(model.folder / "model.safetensors", model.folder.path(), 7);
  run_until(other, 1, 0, "alone");
  for (const std::uint64_t results : {20u, 60u, 90u}) {
    if (!run_until(*model.run, 2, results, "out")) break;
    RunReport report;
    REQUIRE_FALSE(run_until(other, 2, 0, "out", &report));
    REQUIRE(read_file(model.folder / "out") == read_file(model.folder / "alone"));
    REQUIRE_FALSE(fs::exists(model.folder / "out.work"));
    REQUIRE(files_of(model.folder.path(), "out.part").empty());
    fs::remove(model.folder / "out");
  }
}

TEST_CASE("resume: of an input that was written anew, values that are the same are used again, others are not",
          "[run][resume][slow]") {
  const std::string changed = GENERATE(as<std::string>(), "", "a.weight", "b.weight", "c/rows", "e.alone", "m.one");
  const std::uint64_t results = GENERATE(25u, 70u);
  CAPTURE(changed, results);
  const Model model;
  REQUIRE(run_until(*model.run, 2, results, "out"));
  SmallOptions options;
  options.other_values_in = changed;
  make_small_checkpoint(model.folder / "model.safetensors", options);
  const SmallRun now(model.folder / "model.safetensors", model.folder.path());
  run_until(now, 1, 0, "alone");
  REQUIRE((read_file(model.folder / "alone") == model.expected) == changed.empty());
  // Interrupted once more: what has been compared need not be compared again.
  run_until(now, 1, 10, "out");
  RunReport report;
  REQUIRE_FALSE(run_until(now, 3, 0, "out", &report));
  REQUIRE(report.units_resumed > 0);
  REQUIRE(read_file(model.folder / "out") == read_file(model.folder / "alone"));
}

TEST_CASE("resume: a copying that was interrupted is gone on with", "[run][resume]") {
  const Model model;
  std::uint64_t runs = 0, in_copying = 0;
  const auto parts = [&] { return files_of(model.folder.path(), "out.part").size(); };
  // 42 units: copying and reading back do not fit into one run together.
  while (run_until(*model.run, 1 + static_cast<int>(runs % 3), in_copying > 0 ? 60 : 12, "out")) {
    REQUIRE(++runs < 60);
    if (parts() > 0) ++in_copying;
    REQUIRE(parts() == static_cast<std::size_t>(in_copying > 0));
    REQUIRE(files_of(model.folder.path(), "out.lmq-lock").size() == parts());
  }
  REQUIRE(in_copying > 0);
  REQUIRE(read_file(model.folder / "out") == model.expected);
  REQUIRE(parts() == 0);
  REQUIRE(files_of(model.folder.path(), "out.lmq-lock").empty());
}

TEST_CASE("resume: a part file that was damaged, cut off or removed meanwhile does no harm", "[run][resume]") {
  const Model model;
  const std::string what = GENERATE(as<std::string>(), "payload", "metadata", "length", "gone", "another plan");
  CAPTURE(what);
  fs::path part;
  for (std::uint64_t results = 50; part.empty(); results += 5) {
    fs::remove_all(model.folder / "out.work");
    REQUIRE(run_until(*model.run, 1, results, "out"));
    if (const auto parts = files_of(model.folder.path(), "out.part"); !parts.empty()) part = parts[0];
  }
  auto bytes = read_file(part);
  if (what == "payload")
    std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(bytes.size() / 2), bytes.end(), std::byte{7});
  if (what == "metadata") bytes[40] ^= std::byte{1};
  if (what == "length") bytes.pop_back();
  write_file(part, bytes);
  if (what == "gone") fs::remove(part);
  if (what == "another plan") {
    const SmallRun other(model.folder / "model.safetensors", model.folder.path(), 7);
    run_until(other, 1, 0, "alone");
    REQUIRE_FALSE(run_until(other, 1, 0, "out"));
    REQUIRE(read_file(model.folder / "out") == read_file(model.folder / "alone"));
  } else {
    REQUIRE_FALSE(run_until(*model.run, 1, 0, "out"));
    REQUIRE(read_file(model.folder / "out") == model.expected);
  }
  REQUIRE(files_of(model.folder.path(), "out.part").empty());
  REQUIRE(files_of(model.folder.path(), "out.lmq-lock").empty());
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
