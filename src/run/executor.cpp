#include "lmq/run/executor.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/kernels/widen.hpp"
#include "lmq/quant/unit.hpp"
#include "task_type.hpp"

namespace lmq {

void Executor::prefetch(const Task& task) const noexcept {
  const TaskType* const type = find_task_type(task.key.kind);
  if (type == nullptr || type->input != TaskType::Input::weights) return;
  const RunContext& context = tools_.context;
  const WorkUnit& unit = context.plan.units[task.key.subject];
  context.reader.prefetch(context.reader.catalogue().tensors[context.plan.tensors[unit.tensor].tensor], unit.begin,
                          unit.count);
}

LoadedTask Executor::load(Task task, TaskBuffers& buffers) {
  LoadedTask loaded;
  loaded.task = std::move(task);
  if (const auto load = type_of(loaded.task.key).load) load(tools_, loaded, buffers);
  return loaded;
}

Outcome Executor::run(const LoadedTask& loaded) { return type_of(loaded.task.key).run(tools_, loaded); }

Importance load_importance(const RunContext& context, const WorkUnit& unit, ImportanceWindow& window,
                           Curvature curvature) {
  const TensorPlan& tensor = context.plan.tensors[unit.tensor];
  const std::string& name = context.reader.catalogue().tensors[tensor.tensor].name;
  const double quantum = importance_quantum_of(context.plan, unit);
  if (context.importance == nullptr || !tensor.importance.present()) return {.values = {}, .quantum = quantum};
  const ImportanceEntry* const entry = context.importance->find(name);
  if (entry == nullptr) fail(Errc::internal, fmt::format("tensor '{}': its importance is gone", printable(name)));
  context.importance->read(*entry, unit.begin, unit.count, window);
  if (curvature == Curvature::yes && (tensor.importance.gram || tensor.importance.outer_rows > 0)) {
    ImportanceEntry wanted = *entry;
    if (tensor.importance.outer_rows == 0) wanted.outer.tensor = -1;  // units need not be whole blocks of it
    context.importance->read_curvature(wanted, unit.begin, unit.count, window);
  }
  window.importance.quantum = quantum;
  return window.importance;
}

RowWindow row_window(const Plan& plan, const WorkUnit& unit, const TensorView& view, const Importance& importance,
                     Workspace* workspace) noexcept {
  const TensorPlan& tensor = plan.tensors[unit.tensor];
  return {.view = view,
          .importance = importance,
          .cols = tensor.cols,
          .lane_rows = tensor.lane_rows,
          .workspace = workspace,
          .vocabulary = tensor.token_rows ? tensor.rows : 0,
          .first_row = unit.begin / std::max<std::uint64_t>(1, tensor.cols)};
}

void refuse_first_nonfinite(const Reader& reader, const TensorInfo& tensor, std::uint64_t end,
                            std::uint64_t target_bytes) {
  std::vector<std::byte> scratch;
  for (std::uint64_t begin = 0; begin < end; begin += kUnitWeights) {
    const TensorView view = reader.view(tensor, begin, std::min(kUnitWeights, end - begin), scratch);
    const auto index = first_nonfinite(view);
    if (!index) continue;
    const std::size_t width = bits(view.dtype) / 8;
    float value = 0;
    widen(view.dtype, view.bytes.subspan(static_cast<std::size_t>(*index) * width, width), {&value, 1});
    std::string advice = "--nonfinite keep stores such tensors raw";
    if (target_bytes > tensor.bytes)
      advice += fmt::format(", of the {} asked for this one takes {}", format_bytes(target_bytes),
                            format_bytes(tensor.bytes));
    else if (target_bytes > 0)
      advice += fmt::format("; this one takes {}, more than is asked for", format_bytes(tensor.bytes));
    fail(Errc::malformed, fmt::format("{}: tensor '{}': element {} is {}, only finite weights can be quantized ({})",
                                      printable(reader.catalogue().shards[tensor.shard].name), printable(tensor.name),
                                      begin + *index, value, advice));
  }
}

}  // namespace lmq
