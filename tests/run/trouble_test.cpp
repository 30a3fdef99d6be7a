#include <malloc.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <atomic>
#include <catch2/catch.hpp>
#include <csignal>
#include <fstream>
#include <future>

#include "lmq/base/parallel.hpp"
#include "lmq/run/comm.hpp"
#include "small_model.hpp"
#include "worker.hpp"

using namespace lmq;
using namespace lmq::test;

namespace {

namespace fs = std::filesystem;

struct Failure {
  Errc code{0};
  std::string text;
  int ranks_told = 0;
};

/// The error of a run, and how many ranks threw it as agreed.
Failure failure_of(const SmallRun& run, int ranks, const RunOptions& options, FlatFormat& format) {
  Failure failure;
  std::mutex mutex;
  try {
    run_on_threads(ranks, [&](Comm& comm) {
      try {
        (void)run_quantize(comm, run.reader(), nullptr, run.plan(), format, options);
      } catch (const AgreedError& error) {
        const std::lock_guard lock(mutex);
        ++failure.ranks_told;
        if (failure.text.empty()) failure.text = error.what();
        if (failure.text != error.what()) throw std::runtime_error("ranks disagree");
        throw;
      }
    });
  } catch (const Error& error) {
    failure.code = error.code;
  }
  return failure;
}

/// Runs `body` in a process of its own; its exit code, or 256 + signal.
int in_child(const std::function<int()>& body) {
  const pid_t child = fork();
  if (child == 0) {
    int code = 99;
    set_thread_count(1);  // the parent's OpenMP threads are not here
    try {
      code = body();
    } catch (const Error& error) {
      code = static_cast<int>(error.code);
    } catch (...) {
    }
    _exit(code);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? 256 + WTERMSIG(status) : WEXITSTATUS(status);
}

bool part_left(const fs::path& folder) {
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().filename().string().find(".part-") != std::string::npos) return true;
  return false;
}

/// A checkpoint whose second view is given out only when the test says so.
class SlowSecondView final : public Reader {
 public:
  explicit SlowSecondView(const Reader& inner) : inner_(inner) {}
  [[nodiscard]] const Catalogue& catalogue() const noexcept override { return inner_.catalogue(); }
  [[nodiscard]] TensorView view(const TensorInfo& tensor, std::uint64_t begin, std::uint64_t count,
                                std::vector<std::byte>& scratch) const override {
    if (++views_ == 2) {
      asked_.set_value();
      go_.get_future().wait();
    }
    return inner_.view(tensor, begin, count, scratch);
  }
  void prefetch(const TensorInfo&, std::uint64_t, std::uint64_t) const noexcept override {}
  void check_unchanged() const override { inner_.check_unchanged(); }
  void wait_until_asked() const { asked_.get_future().wait(); }
  void go() const { go_.set_value(); }

 private:
  const Reader& inner_;
  mutable std::atomic<int> views_ = 0;
  mutable std::promise<void> asked_, go_;
};

}  // namespace

TEST_CASE("trouble: NaN in a quantized tensor is refused with tensor and first index, by all ranks in the same words",
          "[run][trouble]") {
  const std::string where =
      GENERATE(as<std::string>(), "a.weight", "b.weight", "c/rows", "d.groups", "e.alone", "m.two");
  const TempFolder folder;
  SmallOptions wrong;
  wrong.nan_in = where;
  make_small_checkpoint(folder / "model.safetensors", wrong);
  const SmallRun run(folder / "model.safetensors", folder.path());
  for (const int ranks : {1, 3}) {
    CAPTURE(where, ranks);
    FlatFormat format;
    const Failure failure = failure_of(run, ranks, run.options("out"), format);
    REQUIRE(failure.code == Errc::malformed);
    REQUIRE(failure.ranks_told == ranks);
    REQUIRE(failure.text ==
            "model.safetensors: tensor '" + where +
                "': element 777 is nan, only finite weights can be quantized (--nonfinite keep stores such "
                "tensors raw)");
    REQUIRE_FALSE(fs::exists(folder / "out"));
  }
}

TEST_CASE("trouble: NaN in a kept tensor is kept", "[run][trouble]") {
  const TempFolder folder;
  SmallOptions wrong;
  wrong.nan_in = "kept.big";
  make_small_checkpoint(folder / "model.safetensors", wrong);
  const SmallRun run(folder / "model.safetensors", folder.path());
  FlatFormat format;
  const auto comm = make_self_comm();
  REQUIRE_NOTHROW(run_quantize(*comm, run.reader(), nullptr, run.plan(), format, run.options("out")));
}

TEST_CASE("trouble: tensors with NaN or infinities are found by all ranks together", "[run][trouble]") {
  const std::string where = GENERATE(as<std::string>(), "", "a.weight", "kept.big", "b.weight");
  const TempFolder folder;
  SmallOptions wrong;
  wrong.nan_in = where;
  make_small_checkpoint(folder / "model.safetensors", wrong);
  const auto reader = open_reader(folder / "model.safetensors");
  for (const int ranks : {1, 2, 5})
    run_on_threads(ranks, [&](Comm& comm) {
      const auto found = find_nonfinite_tensors(comm, *reader);
      if (found.size() != (where.empty() ? 0 : 1)) throw std::runtime_error("not one tensor");
      if (!where.empty() && reader->catalogue().tensors[found[0]].name != where)
        throw std::runtime_error("another tensor");
    });
}

TEST_CASE("trouble: an input that cannot be read, or changes, ends the run and nothing is published",
          "[run][trouble]") {
  const TempFolder folder;
  make_small_checkpoint(folder / "model.safetensors");
  const SmallRun run(folder / "model.safetensors", folder.path());
  FlatFormat format;
  const int ranks = GENERATE(1, 3);
  SECTION("it is cut off") {
    fs::resize_file(folder / "model.safetensors", fs::file_size(folder / "model.safetensors") - 9000);
    const Failure failure = failure_of(run, ranks, run.options("out"), format);
    REQUIRE(failure.code == Errc::io);
    REQUIRE(failure.ranks_told == ranks);
    if (ranks > 1) REQUIRE_THAT(failure.text, Catch::Contains("(rank "));
  }
  SECTION("it is touched before the commit") {
    format.before = [&](const FileLayout&) {
      fs::last_write_time(folder / "model.safetensors", fs::file_time_type::clock::now() + std::chrono::seconds(5));
    };
    REQUIRE(failure_of(run, ranks, run.options("out"), format).code == Errc::io);
  }
  REQUIRE_FALSE(fs::exists(folder / "out"));
  REQUIRE_FALSE(part_left(folder.path()));
}

TEST_CASE("trouble: an output that cannot be made is noticed before the work", "[run][trouble]") {
  const TempFolder folder;
  make_small_checkpoint(folder / "model.safetensors");
  const SmallRun run(folder / "model.safetensors", folder.path());
  FlatFormat format;
  RunOptions options = run.options("out");
  options.output = folder / "nowhere" / "out";
  const Failure failure = failure_of(run, 3, options, format);
  REQUIRE(failure.code == Errc::cannot_create);
  REQUIRE(failure.ranks_told == 3);
  REQUIRE_FALSE(fs::exists(options.work_dir));
}

TEST_CASE("trouble: a layout that fails keeps the work and removes the file", "[run][trouble]") {
  const TempFolder folder;
  make_small_checkpoint(folder / "model.safetensors");
  const SmallRun run(folder / "model.safetensors", folder.path());
  FlatFormat format;
  format.before = [&](const FileLayout&) { fail(Errc::io, "no space left on the device"); };
  REQUIRE(failure_of(run, 2, run.options("out"), format).code == Errc::io);
  REQUIRE(fs::exists(folder / "out.work"));
  REQUIRE_FALSE(part_left(folder.path()));
  format.before = nullptr;
  const auto comm = make_self_comm();
  const RunReport report = run_quantize(*comm, run.reader(), nullptr, run.plan(), format, run.options("out"));
  REQUIRE(report.units_resumed > 0);
  REQUIRE_FALSE(fs::exists(folder / "out.work"));
}

TEST_CASE("trouble: when space runs out the error is one line, the work stays, and later it goes on",
          "[run][trouble]") {
  const TempFolder folder;
  make_small_checkpoint(folder / "model.safetensors");
  const SmallRun run(folder / "model.safetensors", folder.path());
  // Writing beyond a limit fails as a full disk does.
  const rlim_t limit = GENERATE(1u, 2000u, 10'000u, 20'000u);
  CAPTURE(limit);
  const int code = in_child([&] {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit tight{limit, limit};
    setrlimit(RLIMIT_FSIZE, &tight);
    FlatFormat format;
    return static_cast<int>(failure_of(run, 2, run.options("out"), format).code);
  });
  REQUIRE(code == static_cast<int>(Errc::io));
  REQUIRE_FALSE(fs::exists(folder / "out"));
  REQUIRE_FALSE(part_left(folder.path()));
  FlatFormat format;
  const auto comm = make_self_comm();
  (void)run_quantize(*comm, run.reader(), nullptr, run.plan(), format, run.options("out"));
  (void)run_quantize(*comm, run.reader(), nullptr, run.plan(), format, run.options("other"));
  REQUIRE(read_file(folder / "out") == read_file(folder / "other"));
}

TEST_CASE("trouble: a signal interrupts all ranks with 75, and the work goes on later", "[run][trouble]") {
  const int number = GENERATE(SIGTERM, SIGUSR1, SIGINT);
  const int ranks = GENERATE(1, 3);
  const TempFolder folder;
  make_small_checkpoint(folder / "model.safetensors");
  const SmallRun run(folder / "model.safetensors", folder.path());
  const int code = in_child([&] {
    FlatFormat format;
    RunOptions options = run.options("out");
    options.stop_after = [&](std::uint64_t results) {
      if (results == 10) std::raise(number);
      return false;
    };
    const Failure failure = failure_of(run, ranks, options, format);
    return failure.ranks_told == ranks ? static_cast<int>(failure.code) : 98;
  });
  REQUIRE(code == static_cast<int>(Errc::interrupted));
  FlatFormat format;
  const auto comm = make_self_comm();
  const RunReport report = run_quantize(*comm, run.reader(), nullptr, run.plan(), format, run.options("out"));
  REQUIRE(report.units_done > 0);
}

TEST_CASE("trouble: killed at any moment, nothing half-done has the final name", "[run][trouble][slow]") {
  const TempFolder folder;
  make_small_checkpoint(folder / "model.safetensors");
  const SmallRun run(folder / "model.safetensors", folder.path());
  FlatFormat format;
  const auto comm = make_self_comm();
  (void)run_quantize(*comm, run.reader(), nullptr, run.plan(), format, run.options("expected"));
  const auto expected = read_file(folder / "expected");
  for (std::uint64_t results = 1; results < 130; results += 6) {
    const int code = in_child([&] {
      RunOptions options = run.options("out");
      options.stop_after = [&](std::uint64_t done) {
        if (done == results) kill(getpid(), SIGKILL);
        return false;
      };
      return static_cast<int>(failure_of(run, 1 + static_cast<int>(results % 3), options, format).code);
    });
    if (code != 256 + SIGKILL) {  // it was done before
      REQUIRE(code == 0);
      REQUIRE(read_file(folder / "out") == expected);
      break;
    }
    REQUIRE_FALSE(fs::exists(folder / "out"));
  }
  (void)run_quantize(*comm, run.reader(), nullptr, run.plan(), format, run.options("out"));
  REQUIRE(read_file(folder / "out") == expected);
  REQUIRE_FALSE(part_left(folder.path()));
}

TEST_CASE("trouble: two runs do not work on one output at the same time, whatever their work directories",
          "[run][trouble]") {
  const TempFolder folder;
  make_small_checkpoint(folder / "model.safetensors");
  const SmallRun run(folder / "model.safetensors", folder.path());
  FlatFormat outer, inner;
  std::vector<Failure> others;
  RunOptions options = run.options("out");
  bool copying = false;
  options.stop_after = [&](std::uint64_t results) {
    // At the beginning, and when the first is copying.
    if (results == 1 || (part_left(folder.path()) && !std::exchange(copying, true))) {
      RunOptions other = run.options("out");
      other.work_dir = folder / "other.work";
      other.resume = false;
      other.patience = std::chrono::milliseconds(50);
      others.push_back(failure_of(run, 1, other, inner));
    }
    return false;
  };
  const auto comm = make_self_comm();
  (void)run_quantize(*comm, run.reader(), nullptr, run.plan(), outer, options);
  REQUIRE(others.size() == 2);
  for (const Failure& other : others) {
    REQUIRE(other.code == Errc::cannot_create);
    REQUIRE_THAT(other.text, Catch::Contains("process " + std::to_string(getpid()) + " on "));
  }
  REQUIRE_FALSE(fs::exists(folder / "other.work"));
  (void)run_quantize(*comm, run.reader(), nullptr, run.plan(), outer, run.options("expected"));
  REQUIRE(read_file(folder / "out") == read_file(folder / "expected"));
}
// More than 40 lines: each kind of damage and what becomes of it.
TEST_CASE(
    "trouble: what lies in the file is compared before it gets its name: units are copied once more, all else "
    "is refused and the older output stays",
    "[run][trouble]") {
  const TempFolder folder;
  make_small_checkpoint(folder / "model.safetensors");
  const SmallRun run(folder / "model.safetensors", folder.path());
  FlatFormat format;
  const auto comm = make_self_comm();
  (void)run_quantize(*comm, run.reader(), nullptr, run.plan(), format, run.options("expected"));
  write_file(folder / "out", "older");
  const int ranks = GENERATE(1, 3);
  const std::string what = GENERATE(as<std::string>(), "payload", "payload again and again", "metadata", "length");
  CAPTURE(ranks, what);
  RunOptions options = run.options("out");
  int damaged = 0;
  options.stop_after = [&](std::uint64_t) {
    for (const auto& entry : fs::directory_iterator(folder.path())) {
      if (entry.path().filename().string().find(".part-") == std::string::npos) continue;
      if (damaged > 0 && what != "payload again and again") continue;
      if (what == "length") {
        fs::resize_file(entry.path(), fs::file_size(entry.path()) + 1);
        ++damaged;
        continue;
      }
      const File file(entry.path(), File::Mode::update);
      const std::uint64_t at = what == "metadata" ? 3 : format.first_piece;
      std::byte byte{};
      file.read(at, {&byte, 1});
      if (what != "metadata" && byte == std::byte{0}) continue;  // not yet copied
      byte = std::byte{0xEE};                                    // no record and no layout has it there
      file.write(at, {&byte, 1});
      ++damaged;
    }
    return false;
  };
  const Failure failure = failure_of(run, ranks, options, format);
  REQUIRE(damaged > 0);
  REQUIRE_FALSE(part_left(folder.path()));
  if (what == "payload") {
    REQUIRE(failure.text == "");
    REQUIRE(read_file(folder / "out") == read_file(folder / "expected"));
    return;
  }
  REQUIRE(failure.code == Errc::io);
  REQUIRE(failure.ranks_told == ranks);
  REQUIRE(read_file(folder / "out").size() == 5);
}

TEST_CASE("trouble: the task in hand is finished on its own input when a rank stops while the next is loaded",
          "[run][trouble]") {
  const TempFolder folder;
  // Freed buffers go back to the system at once: whoever still works on them does not live.
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
  constexpr std::uint64_t kRows = 600, kCols = 4096;
  write_file(folder / "model.safetensors",
             safetensors_bytes({f32_tensor("w", {2 * kRows, kCols}, gaussian(2 * kRows * kCols, 3))}));
  const auto reader = open_reader(folder / "model.safetensors");
  const auto& tensors = reader->catalogue().tensors;
  const Recipe recipe = Recipe::parse(R"({"rules": [{"match": "*", "levels": 64, "granularity": "row"}]})", "a test");
  const Plan plan = cut_smaller(make_plan(tensors, "catalogue", recipe, nullptr), tensors, kRows);
  REQUIRE(plan.units.size() == 2);
  const auto task = [](std::uint64_t unit) {
    return Task{{TaskKind::quantize, unit, 0}, QuantizeOrder().to_bytes(), 0};
  };

  const RunContext undisturbed{*reader, nullptr, plan, folder.path()};
  Spool first(folder.path(), {1, 0, plan.digest, ""});
  Executor executor(undisturbed, first);
  TaskBuffers buffers;
  const std::uint64_t expected = executor.run(executor.load(task(0), buffers)).finished.place.digest;

  const SlowSecondView slow(*reader);
  const RunContext context{slow, nullptr, plan, folder.path()};
  Spool second(folder.path(), {2, 0, plan.digest, ""});
  Worker worker(context, second);
  worker.push(task(0));
  worker.push(task(1));
  slow.wait_until_asked();  // the first task has left the slot: it runs
  worker.stop();
  slow.go();  // the loader ends here, the first task goes on
  while (!worker.at_rest()) worker.wait(std::chrono::milliseconds(1));
  const auto outcome = worker.take();
  REQUIRE(outcome);
  REQUIRE(outcome->finished.place.digest == expected);
  REQUIRE_FALSE(worker.take());
}
