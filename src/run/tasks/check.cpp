#include "coordinator.hpp"
#include "identity.hpp"
#include "unit_tasks.hpp"

namespace lmq::tasks {
namespace {

void load(TaskTools& tools, LoadedTask& loaded, TaskBuffers& buffers) {
  const TensorPlan& tensor = plan_of(tools, loaded.task);
  const bool curved = tensor.lane_rows > 0 || tensor.importance.gram;  // whose digest is part of what was read
  (curved ? load_weights : load_view)(tools, loaded, buffers);
}

Outcome run(TaskTools& tools, const LoadedTask& loaded) {
  Outcome outcome;
  keep(tools, loaded, outcome.finished, {});
  return outcome;
}

std::string identity(const RunContext& context, const Task& task) {
  return elements_identity(context, task.key.subject);
}

void take(Coordinator& coordinator, int, const Outcome& outcome) { coordinator.take_source(outcome.finished); }

}  // namespace

extern const TaskType check;
const TaskType check{.kind = TaskKind::check,
                     .name = "check",
                     .input = TaskType::Input::weights,
                     .restored = TaskType::Restored::values,
                     .load = load,
                     .run = run,
                     .identity = identity,
                     .take = take};

}  // namespace lmq::tasks
