#include "coordinator.hpp"
#include "identity.hpp"
#include "lmq/base/digest.hpp"
#include "lmq/codec/record.hpp"
#include "lmq/codec/trellis_record.hpp"
#include "lmq/quant/unit.hpp"
#include "schedule.hpp"
#include "unit_tasks.hpp"

namespace lmq::tasks {
namespace {

/// A unit's result but for its codebook.
UnitResult result_of(const UnitStats& stats, const EncodedRecord& record, const LoadedTask& loaded) {
  UnitResult result;
  result.stats = stats;
  result.ledger = record.ledger;
  result.entropy_bits = record.entropy_bits;
  result.source_digest = digest64(loaded.view.bytes);
  return result;
}

Outcome kept(TaskTools& tools, const LoadedTask& loaded, const UnitResult& result, const EncodedRecord& record) {
  Outcome outcome;
  outcome.finished.body = result.to_bytes();
  keep(tools, loaded, outcome.finished, record.bytes);
  return outcome;
}

Outcome run(TaskTools& tools, const LoadedTask& loaded) {
  const WorkUnit& unit = unit_of(tools, loaded.task);
  const TensorPlan& tensor = plan_of(tools, loaded.task);
  const TensorInfo& info = info_of(tools, loaded.task);
  // Those of a scope have been looked at when they were measured.
  if (tensor.scope < 0 && first_nonfinite(loaded.view)) refuse_nonfinite(tools, loaded.task);
  const QuantizeOrder order = QuantizeOrder::from_bytes(loaded.task.body);
  QuantSpec spec = tensor.spec;
  if (order.options) spec.options = *order.options;
  if (tensor.lane_rows > 0) {
    const LayerOutcome done = for_tensor(info, [&] { return quantize_layer_unit(layer_window(tools, loaded), spec); });
    const EncodedRecord record = encode_trellis_record(done.unit);
    return kept(tools, loaded, result_of(done.stats, record, loaded), record);
  }
  const Draws draws{digest64(std::as_bytes(std::span(info.name))), unit.begin};
  UnitOutcome done = for_tensor(info, [&] {
    return quantize_unit({loaded.view, loaded.importance, tensor.cols}, spec,
                         order.codebook ? &*order.codebook : nullptr, std::move(tools.recycled), draws);
  });
  const EncodedRecord record = encode_record(done.unit, spec.coder);
  UnitResult result = result_of(done.stats, record, loaded);
  if (tensor.scope < 0 && tensor.spec.granularity <= Granularity::tensor) result.codebook = listed_codebook(done.unit);
  tools.recycled = std::move(done.unit);
  return kept(tools, loaded, result, record);
}

void take(Coordinator& coordinator, int, const Outcome& outcome) { coordinator.take_record(outcome.finished, false); }

void play(Schedule& schedule, const Plan&, const TaskKey& key, int) { schedule.quantized(key.subject); }

}  // namespace

extern const TaskType quantize;
const TaskType quantize{.kind = TaskKind::quantize,
                        .name = "quantize",
                        .input = TaskType::Input::weights,
                        .restored = TaskType::Restored::result,
                        .load = load_weights,
                        .run = run,
                        .identity = unit_identity,
                        .take = take,
                        .play = play};

}  // namespace lmq::tasks
