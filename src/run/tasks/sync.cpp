#include "task_type.hpp"

namespace lmq::tasks {
namespace {

Outcome run(TaskTools& tools, const LoadedTask& loaded) {
  if (tools.output) {
    tools.output->sync();
    tools.output->close();
    tools.output.reset();
  }
  Outcome outcome;
  outcome.finished.key = loaded.task.key;
  return outcome;
}

}  // namespace

extern const TaskType sync;
const TaskType sync{
    .kind = TaskKind::sync, .name = "sync", .subject = TaskType::Subject::rank, .commits = true, .run = run};

}  // namespace lmq::tasks
