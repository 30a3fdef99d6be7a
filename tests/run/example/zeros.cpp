// A kind of task as an example, kept out of the program: how many weights of an F32 unit are zero.
#include "zeros.hpp"

#include <cstring>

#include "identity.hpp"
#include "lmq/base/digest.hpp"

namespace lmq {
namespace test {

std::map<std::uint64_t, std::uint32_t>& zeros_taken() {
  static std::map<std::uint64_t, std::uint32_t> taken;
  return taken;
}

}  // namespace test

namespace tasks {
namespace {

void load(TaskTools& tools, LoadedTask& loaded, TaskBuffers& buffers) {
  const WorkUnit& unit = tools.context.plan.units.at(loaded.task.key.subject);
  const TensorInfo& info = tools.context.reader.catalogue().tensors[tools.context.plan.tensors[unit.tensor].tensor];
  loaded.view = tools.context.reader.view(info, unit.begin, unit.count, buffers.bytes);
}

Outcome run(TaskTools& tools, const LoadedTask& loaded) {
  std::vector<float> values(loaded.view.bytes.size() / sizeof(float));
  std::memcpy(values.data(), loaded.view.bytes.data(), values.size() * sizeof(float));
  ByteWriter out;
  out.le(static_cast<std::uint32_t>(std::ranges::count(values, 0.0F)));
  Outcome outcome;
  outcome.finished.key = loaded.task.key;
  outcome.finished.identity = task_identity(tools.context, loaded.task);
  outcome.finished.source = digest64(loaded.view.bytes);
  outcome.finished.body = out.take();
  tools.spool.append(outcome.finished, {});
  return outcome;
}

void take(Coordinator&, int, const Outcome& outcome) {
  ByteReader in(outcome.finished.body, "result");
  test::zeros_taken()[outcome.finished.key.subject] = in.le<std::uint32_t>("zeros");
}

}  // namespace

extern const TaskType zeros;
const TaskType zeros{.kind = test::kZeros,
                     .name = "zeros",
                     .input = TaskType::Input::weights,
                     .restored = TaskType::Restored::result,
                     .load = load,
                     .run = run,
                     .identity = unit_identity,
                     .take = take};

}  // namespace tasks
}  // namespace lmq
