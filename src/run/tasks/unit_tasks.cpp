#include "unit_tasks.hpp"

#include "identity.hpp"
#include "lmq/base/digest.hpp"

namespace lmq::tasks {
namespace {

/// Digest of all values a task was made from that its identity does not stand for.
std::uint64_t source_of(const LoadedTask& loaded) {
  const std::uint64_t values = digest64(loaded.view.bytes);
  const Importance& importance = loaded.importance;
  if (importance.gram.empty() && importance.outer.empty()) return values;
  const std::uint64_t all[] = {values, digest64(std::as_bytes(importance.gram)),
                               digest64(std::as_bytes(importance.outer))};
  return digest64(std::as_bytes(std::span(all)));
}

}  // namespace

const WorkUnit& unit_of(const TaskTools& tools, const Task& task) {
  return tools.context.plan.units.at(task.key.subject);
}

const TensorPlan& plan_of(const TaskTools& tools, const Task& task) {
  return tools.context.plan.tensors[unit_of(tools, task).tensor];
}

const TensorInfo& info_of(const TaskTools& tools, const Task& task) {
  return tools.context.reader.catalogue().tensors[plan_of(tools, task).tensor];
}

const QuantizerEntry& entry_of(const QuantSpec& spec) {
  const QuantizerEntry* entry = find_quantizer(spec.method);
  if (entry == nullptr)
    fail(Errc::internal, fmt::format("the plan names method {}, which does not exist", spec.method));
  return *entry;
}

void load_view(TaskTools& tools, LoadedTask& loaded, TaskBuffers& buffers) {
  const WorkUnit& unit = unit_of(tools, loaded.task);
  loaded.view = tools.context.reader.view(as_stored(info_of(tools, loaded.task), plan_of(tools, loaded.task).treatment),
                                          unit.begin, unit.count, buffers.bytes);
}

void load_weights(TaskTools& tools, LoadedTask& loaded, TaskBuffers& buffers) {
  load_view(tools, loaded, buffers);
  loaded.importance = load_importance(tools.context, unit_of(tools, loaded.task), buffers.importance);
}

RowWindow layer_window(TaskTools& tools, const LoadedTask& loaded) {
  return row_window(tools.context.plan, unit_of(tools, loaded.task), loaded.view, loaded.importance, &tools.workspace);
}

void refuse_nonfinite(const TaskTools& tools, const Task& task) {
  const WorkUnit& unit = unit_of(tools, task);
  const TensorInfo& info = info_of(tools, task);
  refuse_first_nonfinite(tools.context.reader, info, unit.begin + unit.count, tools.context.plan.target_bytes);
  fail(Errc::io, fmt::format("tensor '{}': its values changed while they were read", printable(info.name)));
}

void keep(TaskTools& tools, const LoadedTask& loaded, Finished& finished, std::span<const std::byte> payload) {
  finished.key = loaded.task.key;
  finished.identity = task_identity(tools.context, loaded.task);
  finished.source = loaded.task.source;
  if (!loaded.view.bytes.empty()) {
    finished.elements = elements_identity(tools.context, loaded.task.key.subject);
    finished.source = source_of(loaded);
  }
  tools.spool.append(finished, payload);
}

}  // namespace lmq::tasks
