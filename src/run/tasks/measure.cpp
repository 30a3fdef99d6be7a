#include <algorithm>

#include "coordinator.hpp"
#include "identity.hpp"
#include "schedule.hpp"
#include "scope_statistics.hpp"
#include "unit_tasks.hpp"

namespace lmq::tasks {
namespace {

// A histogram is kept for a later run unless writing it takes longer than measuring again (F32 looked at closely: 12 MB for
// 16 MB of weights).
constexpr std::size_t kSmallHistogram = std::size_t{64} << 10, kViewsPerHistogram = 8;

Outcome run(TaskTools& tools, const LoadedTask& loaded) {
  const TensorPlan& tensor = plan_of(tools, loaded.task);
  Outcome outcome;
  if (tensor.lane_rows > 0) {
    const auto spreads = window_spreads(layer_window(tools, loaded), tensor.spec);
    if (!spreads) refuse_nonfinite(tools, loaded.task);
    outcome.histogram = spreads->to_bytes();
    keep(tools, loaded, outcome.finished, outcome.histogram);
    return outcome;
  }
  const auto ranges = ranges_from_bytes(loaded.task.body, kFromRankZero);
  const auto histogram = window_values({loaded.view, loaded.importance, tensor.cols}, tensor.spec, ranges);
  if (!histogram) refuse_nonfinite(tools, loaded.task);
  outcome.histogram = histogram->to_bytes();
  const bool worth_keeping =
      outcome.histogram.size() <= std::max(kSmallHistogram, loaded.view.bytes.size() / kViewsPerHistogram);
  keep(tools, loaded, outcome.finished, worth_keeping ? outcome.histogram : std::span<const std::byte>());
  return outcome;
}

void take(Coordinator& coordinator, int from, const Outcome& outcome) {
  coordinator.take_measured(outcome.finished, outcome.histogram, from);
}

void play(Schedule& schedule, const Plan& plan, const TaskKey& key, int rank) {
  const auto scope = static_cast<std::size_t>(plan.tensors[plan.units[key.subject].tensor].scope);
  if (plan.scopes[scope].layers)
    schedule.measured(key.subject, key.round, SpreadHistogram(), rank);
  else
    schedule.measured(key.subject, key.round, ValueHistogram(), rank);
}

}  // namespace

extern const TaskType measure;
const TaskType measure{.kind = TaskKind::measure,
                       .name = "measure",
                       .input = TaskType::Input::weights,
                       .restored = TaskType::Restored::result,
                       .histogram = TaskType::Histogram::found,
                       .load = load_weights,
                       .run = run,
                       .identity = unit_identity,
                       .take = take,
                       .play = play};

}  // namespace lmq::tasks
