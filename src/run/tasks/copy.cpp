#include "coordinator.hpp"
#include "lmq/base/digest.hpp"
#include "unit_tasks.hpp"

namespace lmq::tasks {
namespace {

void load(TaskTools& tools, LoadedTask& loaded, TaskBuffers& buffers) {
  if (plan_of(tools, loaded.task).treatment != Treatment::quantize) return load_view(tools, loaded, buffers);
  loaded.record = tools.spool_files.read(CopyOrder::from_bytes(loaded.task.body).from, buffers.bytes);
}

Outcome run(TaskTools& tools, const LoadedTask& loaded) {
  const CopyOrder order = CopyOrder::from_bytes(loaded.task.body);
  const bool kept = order.from.length == 0;
  const std::span<const std::byte> bytes = kept ? loaded.view.bytes : loaded.record;
  CopyResult result;
  result.intact = kept || !bytes.empty();
  result.bytes = bytes.size();
  if (result.intact) {
    if (!tools.output || tools.output->path() != order.output) tools.output = File(order.output, File::Mode::update);
    result.digest = kept ? digest64(bytes) : order.from.digest;
    tools.output->write(order.address, bytes);
  }
  Outcome outcome;
  outcome.finished.key = loaded.task.key;
  outcome.finished.identity = order.origin;
  outcome.finished.body = result.to_bytes();
  if (result.intact) tools.spool.append(outcome.finished, {});  // a later run goes on with this file
  return outcome;
}

void take(Coordinator& coordinator, int, const Outcome& outcome) {
  coordinator.commit().copied(outcome.finished.key.subject, CopyResult::from_bytes(outcome.finished.body));
}

}  // namespace

extern const TaskType copy;
const TaskType copy{.kind = TaskKind::copy,
                    .name = "copy",
                    .input = TaskType::Input::stored,
                    .restored = TaskType::Restored::copied,
                    .commits = true,
                    .writes = true,
                    .seconds_per_byte = 0.3e-9,  // digest and copy
                    .load = load,
                    .run = run,
                    .take = take};

}  // namespace lmq::tasks
