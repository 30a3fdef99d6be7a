#include <catch2/catch.hpp>

#include "lmq/base/parallel.hpp"
#include "lmq/codec/record.hpp"
#include "lmq/run/comm.hpp"
#include "small_model.hpp"

using namespace lmq;
using namespace lmq::test;

namespace {

// More than 5 parameters: what runs of these tests differ in.
std::vector<std::byte> run_with(const SmallRun& run, int ranks, std::size_t threads, const std::string& output,
                                const std::filesystem::path& home, const ImportanceFile* importance = nullptr) {
  set_thread_count(threads);
  run_on_threads(ranks, [&](Comm& comm) {
    FlatFormat format;
    const RunReport report = run_quantize(comm, run.reader(), importance, run.plan(), format, run.options(output));
    if (comm.rank() == 0 && report.units_done != run.plan().units.size())
      throw std::runtime_error("units were not counted");
  });
  set_thread_count(0);
  return read_file(home / output);
}

}  // namespace

TEST_CASE("run: the plan of these tests has one of everything", "[run][flow]") {
  const TempFolder folder;
  make_small_checkpoint(folder / "model.safetensors");
  const SmallRun run(folder / "model.safetensors", folder.path());
  std::size_t shared = 0, own = 0, kept = 0;
  for (const TensorPlan& tensor : run.plan().tensors) {
    shared += tensor.scope >= 0;
    own += tensor.treatment == Treatment::quantize && tensor.scope < 0;
    kept += tensor.treatment == Treatment::keep;
  }
  REQUIRE(shared == 4);
  REQUIRE(run.plan().scopes.size() == 3);
  REQUIRE(own == 3);
  REQUIRE(kept == 4);
}

TEST_CASE("run: the same bytes for any ranks and threads", "[run][flow][slow]") {
  const TempFolder folder;
  make_small_checkpoint(folder / "model.safetensors");
  const SmallRun run(folder / "model.safetensors", folder.path());
  const auto expected = run_with(run, 1, 1, "first", folder.path());
  REQUIRE(expected.size() > 10'000);
  for (const int ranks : {1, 2, 3, 5})
    for (const std::size_t threads : {1u, 2u}) {
      CAPTURE(ranks, threads);
      REQUIRE(run_with(run, ranks, threads, "again", folder.path()) == expected);
      REQUIRE_FALSE(std::filesystem::exists(folder / "again.work"));
    }
  std::size_t files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder.path())) ++files;
  REQUIRE(files == 3);  // model, first, again: nothing else stays
}

TEST_CASE("run: importance enters, and changes nothing of the sameness", "[run][flow]") {
  const TempFolder folder;
  make_small_checkpoint(folder / "model.safetensors");
  std::vector<float> columns(100), weights(6300), rows(90);
  for (std::size_t i = 0; i < columns.size(); ++i) columns[i] = 0.1f + static_cast<float>(i % 13);
  for (std::size_t i = 0; i < weights.size(); ++i) weights[i] = static_cast<float>(1 + i % 101) * 0.37f;
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = 0.01f * static_cast<float>(1 + i % 7);
  const bool outer = GENERATE(false, true);
  const TestTensor by_weight = f32_tensor("b.weight", {90, 70}, weights);
  const TestTensor by_row = f32_tensor("b.weight.rows", {90}, rows);
  write_file(folder / "importance.safetensors",
             safetensors_bytes({f32_tensor("a.weight", {100}, columns), outer ? by_row : by_weight}));
  const auto checkpoint = open_reader(folder / "model.safetensors");
  const ImportanceFile importance(folder / "importance.safetensors", checkpoint->catalogue());
  const SmallRun with(folder / "model.safetensors", folder.path(), 11, &importance);
  const SmallRun without(folder / "model.safetensors", folder.path());
  const auto expected = run_with(with, 1, 2, "with", folder.path(), &importance);
  REQUIRE(run_with(with, 3, 1, "again", folder.path(), &importance) == expected);
  REQUIRE(run_with(without, 1, 1, "without", folder.path()) != expected);
}

// More than 40 lines: a check for each kind of tensor of the file.
TEST_CASE("run: records decode to the errors that are reported, kept tensors are the checkpoint's bytes",
          "[run][flow]") {
  const TempFolder folder;
  make_small_checkpoint(folder / "model.safetensors");
  const SmallRun run(folder / "model.safetensors", folder.path());
  FlatFormat format;
  FileLayout layout;
  format.before = [&](const FileLayout& made) { layout = made; };
  const auto comm = make_self_comm();
  const RunReport report = run_quantize(*comm, run.reader(), nullptr, run.plan(), format, run.options("out"));
  const FilePlaces places = format.create(folder / "probe", layout);
  const auto file = read_file(folder / "out");
  REQUIRE(report.file_bytes == file.size());
  REQUIRE(report.tensors.size() == run.plan().tensors.size());
  std::vector<std::byte> scratch;
  for (std::size_t t = 0; t < report.tensors.size(); ++t) {
    const TensorInfo& info = run.reader().catalogue().tensors[t];
    const TensorPlan& tensor = run.plan().tensors[t];
    CAPTURE(info.name);
    const auto at = std::find_if(layout.datasets.begin(), layout.datasets.end(),
                                 [&](const DatasetLayout& dataset) { return dataset.path == "/" + info.name; });
    REQUIRE(at != layout.datasets.end());
    const auto d = static_cast<std::size_t>(at - layout.datasets.begin());
    const auto piece = [&](std::size_t p) { return std::span(file).subspan(places.offsets[d][p], at->piece_bytes[p]); };
    if (tensor.treatment == Treatment::keep) {
      REQUIRE(report.tensors[t].method == "raw");
      REQUIRE_FALSE(report.tensors[t].reason.empty());
      if (info.count() == 0) continue;
      const TensorView view = run.reader().view(info, 0, info.count(), scratch);
      REQUIRE(std::ranges::equal(piece(0), view.bytes));
      continue;
    }
    double squared = 0, energy = 0;
    for (std::uint64_t u = 0; u < tensor.units; ++u) {
      const WorkUnit& unit = run.plan().units[tensor.first_unit + u];
      std::vector<float> values(unit.count);
      decode_record_values(piece(u), values, info.name);
      const TensorView view = run.reader().view(info, unit.begin, unit.count, scratch);
      const UnitStats stats = measure_error(view, values, {});
      squared += stats.squared_error;
      energy += stats.energy;
    }
    REQUIRE(report.tensors[t].squared_error == squared);
    REQUIRE(report.tensors[t].energy == energy);
    REQUIRE(squared < 0.2 * energy);
  }
}

TEST_CASE("run: a checkpoint of empty tensors becomes a file", "[run][flow]") {
  const TempFolder folder;
  std::vector<TestTensor> tensors;
  for (const char* name : {"a.0", "c/0", "d.0", "empty", "kept.0", "m.0"})
    tensors.push_back(f32_tensor(name, {0, 16}, {}));
  write_file(folder / "model.safetensors", safetensors_bytes(tensors));
  const SmallRun run(folder / "model.safetensors", folder.path());
  REQUIRE(run.plan().units.empty());
  for (const int ranks : {1, 3})
    REQUIRE(run_with(run, ranks, 1, "out" + std::to_string(ranks), folder.path()).size() > 100);
  REQUIRE(read_file(folder / "out1") == read_file(folder / "out3"));
}

TEST_CASE("run: an older output stays until the new one is whole", "[run][flow]") {
  const TempFolder folder;
  make_small_checkpoint(folder / "model.safetensors");
  const SmallRun run(folder / "model.safetensors", folder.path());
  write_file(folder / "out", "an older result");
  FlatFormat format;
  bool there = false;
  format.before = [&](const FileLayout&) { there = read_file(folder / "out").size() == 15; };
  const auto comm = make_self_comm();
  (void)run_quantize(*comm, run.reader(), nullptr, run.plan(), format, run.options("out"));
  REQUIRE(there);
  REQUIRE(read_file(folder / "out").size() > 1000);
}
