#include "coordinator.hpp"
#include "identity.hpp"
#include "lmq/quant/value_histogram.hpp"
#include "schedule.hpp"
#include "unit_tasks.hpp"

namespace lmq::tasks {
namespace {

void load(TaskTools& tools, LoadedTask& loaded, TaskBuffers& buffers) {
  const SpoolPlace place = SolveOrder::from_bytes(loaded.task.body).place;
  if (place.length > 0) loaded.record = tools.spool_files.read(place, buffers.bytes);
}

Outcome run(TaskTools& tools, const LoadedTask& loaded) {
  const Scope& scope = tools.context.plan.scopes.at(loaded.task.key.subject);
  const SolveOrder order = SolveOrder::from_bytes(loaded.task.body);
  Outcome outcome;
  if (order.place.length > 0 && loaded.record.empty()) {  // not what was written: it is made once more
    outcome.finished.key = loaded.task.key;
    return outcome;
  }
  const ValueHistogram histogram =
      ValueHistogram::from_bytes(order.place.length > 0 ? loaded.record : order.histogram, kFromRankZero);
  const TensorInfo& first = tools.context.reader.catalogue().tensors[scope.tensors.at(0)];
  const auto quantizer = entry_of(scope.spec).make(order.options.value_or(scope.spec.options));
  Fit fit = for_tensor(first, [&] { return quantizer->fit(histogram.group(scope.quantum)); });
  if (fit.refine.empty())
    fit.codebook = fit.codebook.stored_as(scope.spec.level_type, quantizer->traits().rounding == Rounding::stochastic);
  outcome.finished.body = fit_to_bytes(fit);
  keep(tools, loaded, outcome.finished, {});
  return outcome;
}

std::string identity(const RunContext& context, const Task& task) {
  return solve_identity(context, task.key.subject, SolveOrder::from_bytes(task.body).options, task.key.round);
}

void take(Coordinator& coordinator, int, const Outcome& outcome) { coordinator.take_solved(outcome.finished); }

void play(Schedule& schedule, const Plan&, const TaskKey& key, int) {
  schedule.solved(key.subject, key.round, {Codebook::grid(0, 0, 1), {}});
}

}  // namespace

extern const TaskType solve;
const TaskType solve{.kind = TaskKind::solve,
                     .name = "solve",
                     .subject = TaskType::Subject::scope,
                     .restored = TaskType::Restored::result,
                     .histogram = TaskType::Histogram::sent,
                     .load = load,
                     .run = run,
                     .identity = identity,
                     .take = take,
                     .play = play};

}  // namespace lmq::tasks
