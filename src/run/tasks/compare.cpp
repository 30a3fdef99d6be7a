#include "coordinator.hpp"
#include "lmq/base/digest.hpp"
#include "task_type.hpp"

namespace lmq::tasks {
namespace {

void load(TaskTools& tools, LoadedTask& loaded, TaskBuffers& buffers) {
  const CopyOrder order = CopyOrder::from_bytes(loaded.task.body);
  if (!tools.compared || tools.compared->path() != order.output) tools.compared = File(order.output, File::Mode::read);
  if (buffers.bytes.size() < order.from.length) buffers.bytes.resize(order.from.length);
  const std::span<std::byte> bytes(buffers.bytes.data(), order.from.length);
  tools.compared->read(order.address, bytes);
  loaded.record = bytes;
}

Outcome run(TaskTools&, const LoadedTask& loaded) {
  const CopyOrder order = CopyOrder::from_bytes(loaded.task.body);
  const CopyResult result{digest64(loaded.record) == order.from.digest, order.from.digest, order.from.length};
  Outcome outcome;
  outcome.finished.key = loaded.task.key;
  outcome.finished.body = result.to_bytes();
  return outcome;
}

void take(Coordinator& coordinator, int, const Outcome& outcome) {
  coordinator.commit().compared(outcome.finished.key.subject, CopyResult::from_bytes(outcome.finished.body));
}

}  // namespace

extern const TaskType compare;
const TaskType compare{.kind = TaskKind::compare,
                       .name = "compare",
                       .input = TaskType::Input::stored,
                       .commits = true,
                       .seconds_per_byte = 0.1e-9,  // digest
                       .load = load,
                       .run = run,
                       .take = take};

}  // namespace lmq::tasks
