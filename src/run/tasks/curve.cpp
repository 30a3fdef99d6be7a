#include "coordinator.hpp"
#include "identity.hpp"
#include "lmq/quant/spread_histogram.hpp"
#include "lmq/quant/value_histogram.hpp"
#include "schedule.hpp"
#include "scope_curve.hpp"
#include "unit_tasks.hpp"

namespace lmq::tasks {
namespace {

ScopeCurve curve_from(std::span<const std::byte> histogram, const RunContext& context, const Scope& scope) {
  if (scope.layers) return curve_of(SpreadHistogram::from_bytes(histogram, kFromRankZero), context.plan, scope);
  return curve_of(ValueHistogram::from_bytes(histogram, kFromRankZero).group(scope.quantum), context, scope);
}

Outcome run(TaskTools& tools, const LoadedTask& loaded) {
  const Scope& scope = tools.context.plan.scopes.at(loaded.task.key.subject);
  Outcome outcome;
  outcome.finished.body = curve_to_bytes(curve_from(loaded.task.body, tools.context, scope));
  keep(tools, loaded, outcome.finished, loaded.task.body);
  return outcome;
}

std::string identity(const RunContext& context, const Task& task) { return curve_identity(context, task.key.subject); }

void take(Coordinator& coordinator, int, const Outcome& outcome) {
  coordinator.take_curve(outcome.finished.key.subject, outcome.finished);
}

void play(Schedule& schedule, const Plan&, const TaskKey& key, int) { schedule.curved(key.subject, {}); }

}  // namespace

extern const TaskType curve;
const TaskType curve{.kind = TaskKind::curve,
                     .name = "curve",
                     .subject = TaskType::Subject::scope,
                     .restored = TaskType::Restored::result,
                     .histogram = TaskType::Histogram::sent,
                     .run = run,
                     .identity = identity,
                     .take = take,
                     .play = play};

}  // namespace lmq::tasks
