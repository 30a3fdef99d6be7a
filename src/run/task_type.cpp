#include "task_type.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "lmq/base/error.hpp"

namespace lmq {

// Each defined in the source of its name. LMQ_MORE_TASKS: a table of a test's own kinds.
namespace tasks {
#define LMQ_TASK(name, number) extern const TaskType name;
#include "lmq/run/tasks.inc"
#ifdef LMQ_MORE_TASKS
#include LMQ_MORE_TASKS
#endif
#undef LMQ_TASK
}  // namespace tasks

std::span<const TaskType* const> task_types() noexcept {
#define LMQ_TASK(name, number) &tasks::name,
  static constexpr std::array kTable{
#include "lmq/run/tasks.inc"
#ifdef LMQ_MORE_TASKS
#include LMQ_MORE_TASKS
#endif
  };
#undef LMQ_TASK
  return kTable;
}

const TaskType* find_task_type(TaskKind kind) noexcept {
  const auto at = std::ranges::find(task_types(), kind, [](const TaskType* type) { return type->kind; });
  return at == task_types().end() ? nullptr : *at;
}

const TaskType& type_of(const TaskKey& key) {
  const TaskType* type = find_task_type(key.kind);
  if (type == nullptr)
    fail(Errc::internal, fmt::format("a task of kind {}, which there is none of", static_cast<int>(key.kind)));
  return *type;
}

}  // namespace lmq
