#include <catch2/catch.hpp>
#include <set>

#include "coordinator.hpp"
#include "example/zeros.hpp"
#include "identity.hpp"
#include "small_model.hpp"
#include "worker.hpp"

using namespace lmq;
using namespace lmq::test;

TEST_CASE("tasks: every kind has a number, a name and a function of its own, and what is found again has an identity",
          "[run][tasks]") {
  std::set<TaskKind> kinds;
  std::set<std::string_view> names;
  for (const TaskType* type : task_types()) {
    CAPTURE(type->name);
    CHECK(find_task_type(type->kind) == type);
    CHECK(kinds.insert(type->kind).second);
    CHECK(names.insert(type->name).second);
    CHECK(type->run != nullptr);
    CHECK((type->identity != nullptr) ==
          (type->restored == TaskType::Restored::result || type->restored == TaskType::Restored::values));
    CHECK((type->load != nullptr || type->input == TaskType::Input::body));
    CHECK((type->seconds_per_byte > 0) == (type->input == TaskType::Input::stored));
  }
  CHECK(names.contains("measure"));
  CHECK(find_task_type(TaskKind{}) == nullptr);
  CHECK_THROWS_AS(type_of(TaskKey{TaskKind{199}, 0, 0}), Error);
}

TEST_CASE("tasks: a new kind is a file and a line: ranks do it, messages and journals carry it, rank 0 takes it",
          "[run][tasks]") {
  const TempFolder folder;
  std::vector<float> values = gaussian(50 * 64, 3);
  for (const std::size_t zero : {0u, 1u, 703u, 704u, 3199u}) values[zero] = 0;  // units of 11 rows
  write_file(folder / "model", safetensors_bytes({f32_tensor("w", {50, 64}, values)}));
  const auto reader = open_reader(folder / "model");
  const auto& tensors = reader->catalogue().tensors;
  const Recipe recipe = Recipe::parse(R"({"rules": [{"match": "*", "levels": 4}]})", "a test");
  const Plan plan = cut_smaller(make_plan(tensors, "catalogue", recipe, nullptr), tensors, 11);
  RunOptions options;
  options.output = folder / "out";
  options.work_dir = folder / "work";
  const RunContext context{*reader, nullptr, plan, options.work_dir};
  const JournalHeader header{1, 0, plan.digest, ""};
  RunLock::Request request;
  request.path = folder / "lock";
  const RunLock lock(request);
  FlatFormat format;
  zeros_taken().clear();
  run_on_threads(1, [&](Comm& comm) {
    WorkDir work_dir(options.work_dir, header, true);
    Coordinator coordinator(comm, context, format, options, lock, work_dir);
    Spool spool(options.work_dir, header);
    Worker worker(context, spool);
    for (std::uint64_t unit = 0; unit < plan.units.size(); ++unit) {
      worker.push(task_of(task_message({{kZeros, unit, 0}, {}, 0, 0})));
      std::optional<Outcome> outcome;
      while (!(outcome = worker.take())) worker.wait(std::chrono::milliseconds(1));
      coordinator.on_message({0, result_message(*outcome)});
    }
    coordinator.stop({});
  });
  CHECK(zeros_taken() == std::map<std::uint64_t, std::uint32_t>{{0, 3}, {1, 1}, {2, 0}, {3, 0}, {4, 1}});

  const WorkDir later(options.work_dir, header, true);
  Restored restored(context, later);
  const std::uint64_t unit = 1;
  const auto found = restored.find(task_identity(context, {{kZeros, unit, 0}, {}, 0, 0}), {&unit, 1});
  REQUIRE(found);
  CHECK(found->key.kind == kZeros);
  CHECK(task_identity(context, {{TaskKind::measure, unit, 0}, {}, 0, 0}) != found->identity);
}
