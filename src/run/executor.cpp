#include "lmq/run/executor.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "lmq/base/digest.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/codec/record.hpp"
#include "lmq/codec/trellis_record.hpp"
#include "lmq/kernels/widen.hpp"
#include "lmq/quant/quantizer.hpp"
#include "lmq/quant/unit.hpp"
#include "lmq/quant/value_histogram.hpp"
#include "lmq/run/forecast.hpp"
#include "lmq/run/identity.hpp"

namespace lmq {
namespace {

constexpr const char* kFromRankZero = "message from rank 0";
// A histogram is kept for a later run unless writing it takes longer than measuring again (F32 looked at closely: 12 MB for
// 16 MB of weights).
constexpr std::size_t kSmallHistogram = std::size_t{64} << 10, kViewsPerHistogram = 8;

const QuantizerEntry& entry_of(const QuantSpec& spec) {
  const QuantizerEntry* entry = find_quantizer(spec.method);
  if (entry == nullptr)
    fail(Errc::internal, fmt::format("the plan names method {}, which does not exist", spec.method));
  return *entry;
}

}  // namespace

const TensorInfo& Executor::info_of(const WorkUnit& unit) const {
  return context_.reader.catalogue().tensors[context_.plan.tensors[unit.tensor].tensor];
}

void Executor::prefetch(const Task& task) const noexcept {
  if (task.key.kind != TaskKind::measure && task.key.kind != TaskKind::quantize && task.key.kind != TaskKind::check)
    return;
  const WorkUnit& unit = context_.plan.units[task.key.subject];
  context_.reader.prefetch(info_of(unit), unit.begin, unit.count);
}

Importance load_importance(const RunContext& context, const WorkUnit& unit, ImportanceWindow& window) {
  const TensorPlan& tensor = context.plan.tensors[unit.tensor];
  const std::string& name = context.reader.catalogue().tensors[tensor.tensor].name;
  const double quantum = importance_quantum_of(context.plan, unit);
  if (context.importance == nullptr || !tensor.importance.present()) return {.values = {}, .quantum = quantum};
  const ImportanceEntry* const entry = context.importance->find(name);
  if (entry == nullptr) fail(Errc::internal, fmt::format("tensor '{}': its importance is gone", printable(name)));
  context.importance->read(*entry, unit.begin, unit.count, window);
  if (tensor.importance.gram || tensor.importance.outer_rows > 0) {
    ImportanceEntry wanted = *entry;
    if (tensor.importance.outer_rows == 0) wanted.outer.tensor = -1;  // units need not be whole blocks of it
    context.importance->read_curvature(wanted, unit.begin, unit.count, window);
  }
  window.importance.quantum = quantum;
  return window.importance;
}

LoadedTask Executor::load(Task task, TaskBuffers& buffers) {
  LoadedTask loaded;
  loaded.task = std::move(task);
  const TaskKey& key = loaded.task.key;
  if (key.kind == TaskKind::sync || key.kind == TaskKind::curve) return loaded;
  if (key.kind == TaskKind::solve) {
    const SpoolPlace place = SolveOrder::from_bytes(loaded.task.body).place;
    if (place.length > 0) loaded.record = spool_files_.read(place, buffers.bytes);
    return loaded;
  }
  if (key.kind == TaskKind::compare) {
    const CopyOrder order = CopyOrder::from_bytes(loaded.task.body);
    if (!compared_ || compared_->path() != order.output) compared_ = File(order.output, File::Mode::read);
    if (buffers.bytes.size() < order.from.length) buffers.bytes.resize(order.from.length);
    const std::span<std::byte> bytes(buffers.bytes.data(), order.from.length);
    compared_->read(order.address, bytes);
    loaded.record = bytes;
    return loaded;
  }
  const WorkUnit& unit = context_.plan.units.at(key.subject);
  const Treatment treatment = context_.plan.tensors[unit.tensor].treatment;
  if (key.kind == TaskKind::copy && treatment == Treatment::quantize) {
    loaded.record = spool_files_.read(CopyOrder::from_bytes(loaded.task.body).from, buffers.bytes);
    return loaded;
  }
  loaded.view = context_.reader.view(as_stored(info_of(unit), treatment), unit.begin, unit.count, buffers.bytes);
  const TensorPlan& tensor = context_.plan.tensors[unit.tensor];
  const bool curved = tensor.lane_rows > 0 || tensor.importance.gram;  // whose digest is part of what was read
  if (key.kind != TaskKind::copy && (key.kind != TaskKind::check || curved))
    loaded.importance = load_importance(context_, unit, buffers.importance);
  return loaded;
}

Outcome Executor::run(const LoadedTask& loaded) {
  switch (loaded.task.key.kind) {
    case TaskKind::measure:
      return measure(loaded);
    case TaskKind::solve:
      return solve(loaded);
    case TaskKind::quantize:
      return quantize(loaded);
    case TaskKind::copy:
      return copy(loaded);
    case TaskKind::sync:
      return sync(loaded);
    case TaskKind::curve:
      return curve(loaded);
    case TaskKind::compare:
      return compare(loaded);
    case TaskKind::check:
      return check(loaded);
  }
  fail(Errc::internal, "a task of no known kind");
}

RowWindow Executor::layer_window(const LoadedTask& loaded) {
  const TensorPlan& tensor = context_.plan.tensors[context_.plan.units[loaded.task.key.subject].tensor];
  return {loaded.view, loaded.importance, tensor.cols, tensor.lane_rows, &workspace_};
}

Outcome Executor::measure(const LoadedTask& loaded) {
  if (const TensorPlan& tensor = context_.plan.tensors[context_.plan.units[loaded.task.key.subject].tensor];
      tensor.lane_rows > 0) {
    if (first_nonfinite(loaded.view)) refuse_nonfinite(context_.plan.units[loaded.task.key.subject]);
    Outcome outcome;
    outcome.histogram = layer_spreads(layer_window(loaded), tensor.spec).to_bytes();
    keep(loaded, outcome.finished, outcome.histogram);
    return outcome;
  }
  const auto ranges = ranges_from_bytes(loaded.task.body, kFromRankZero);
  const QuantSpec& spec = context_.plan.tensors[context_.plan.units[loaded.task.key.subject].tensor].spec;
  const auto quantizer = entry_of(spec).make(spec.options);
  const ValueHistogram histogram =
      ValueHistogram::of(loaded.view, quantizer->traits().importance ? loaded.importance : Importance{}, ranges,
                         quantizer->traits().by_importance);
  if (histogram.nonfinite() > 0) refuse_nonfinite(context_.plan.units[loaded.task.key.subject]);
  Outcome outcome;
  outcome.histogram = histogram.to_bytes();
  const bool worth_keeping =
      outcome.histogram.size() <= std::max(kSmallHistogram, loaded.view.bytes.size() / kViewsPerHistogram);
  keep(loaded, outcome.finished, worth_keeping ? outcome.histogram : std::span<const std::byte>());
  return outcome;
}

namespace {
/// What a method refuses of the user's options is said with the tensor it met.
template <class Work>
auto for_tensor(const TensorInfo& tensor, const Work& work) {
  try {
    return work();
  } catch (const Error& error) {
    if (error.code != Errc::usage) throw;
    fail(Errc::usage, fmt::format("tensor '{}': {}", printable(tensor.name), error.what()));
  }
}
}  // namespace

Outcome Executor::solve(const LoadedTask& loaded) {
  const Scope& scope = context_.plan.scopes.at(loaded.task.key.subject);
  const SolveOrder order = SolveOrder::from_bytes(loaded.task.body);
  if (order.place.length > 0 && loaded.record.empty()) {  // not what was written: it is made once more
    Outcome lost;
    lost.finished.key = loaded.task.key;
    return lost;
  }
  const ValueHistogram histogram =
      ValueHistogram::from_bytes(order.place.length > 0 ? loaded.record : order.histogram, kFromRankZero);
  const TensorInfo& first = context_.reader.catalogue().tensors[scope.tensors.at(0)];
  const auto quantizer = entry_of(scope.spec).make(order.options.value_or(scope.spec.options));
  Fit fit = for_tensor(first, [&] { return quantizer->fit(histogram.group(scope.quantum)); });
  if (fit.refine.empty())
    fit.codebook = fit.codebook.stored_as(scope.spec.level_type, quantizer->traits().rounding == Rounding::stochastic);
  Outcome outcome;
  outcome.finished.body = fit_to_bytes(fit);
  keep(loaded, outcome.finished, {});
  return outcome;
}

Outcome Executor::curve(const LoadedTask& loaded) {
  const Scope& scope = context_.plan.scopes.at(loaded.task.key.subject);
  Outcome outcome;
  if (scope.layers) {
    outcome.finished.body =
        curve_to_bytes(curve_of(SpreadHistogram::from_bytes(loaded.task.body, kFromRankZero), context_.plan, scope));
    keep(loaded, outcome.finished, loaded.task.body);
    return outcome;
  }
  const Group group = ValueHistogram::from_bytes(loaded.task.body, kFromRankZero).group(scope.quantum);
  outcome.finished.body = curve_to_bytes(curve_of(group, scope.spec));
  keep(loaded, outcome.finished, loaded.task.body);
  return outcome;
}

Outcome Executor::quantize(const LoadedTask& loaded) {
  const WorkUnit& unit = context_.plan.units[loaded.task.key.subject];
  const TensorPlan& tensor = context_.plan.tensors[unit.tensor];
  if (tensor.lane_rows > 0) return quantize_layer(loaded);
  // Those of a scope have been looked at when they were measured.
  if (tensor.scope < 0 && first_nonfinite(loaded.view)) refuse_nonfinite(unit);
  const QuantizeOrder order = QuantizeOrder::from_bytes(loaded.task.body);
  QuantSpec spec = tensor.spec;
  if (order.options) spec.options = *order.options;
  const Draws draws{digest64(std::as_bytes(std::span(info_of(unit).name))), unit.begin};
  UnitOutcome done = for_tensor(info_of(unit), [&] {
    return quantize_unit(loaded.view, spec, tensor.cols, loaded.importance, order.codebook ? &*order.codebook : nullptr,
                         std::move(recycled_), draws);
  });
  const EncodedRecord record = encode_record(done.unit, spec.coder);
  UnitResult result;
  result.stats = done.stats;
  result.ledger = record.ledger;
  result.entropy_bits = record.entropy_bits;
  result.source_digest = digest64(loaded.view.bytes);
  if (tensor.scope < 0 && tensor.spec.granularity <= Granularity::tensor) result.codebook = listed_codebook(done.unit);
  recycled_ = std::move(done.unit);
  Outcome outcome;
  outcome.finished.body = result.to_bytes();
  keep(loaded, outcome.finished, record.bytes);
  return outcome;
}

Outcome Executor::quantize_layer(const LoadedTask& loaded) {
  const WorkUnit& unit = context_.plan.units[loaded.task.key.subject];
  const TensorPlan& tensor = context_.plan.tensors[unit.tensor];
  if (tensor.scope < 0 && first_nonfinite(loaded.view)) refuse_nonfinite(unit);
  const QuantizeOrder order = QuantizeOrder::from_bytes(loaded.task.body);
  QuantSpec spec = tensor.spec;
  if (order.options) spec.options = *order.options;
  const LayerOutcome done = for_tensor(info_of(unit), [&] { return quantize_layer_unit(layer_window(loaded), spec); });
  const EncodedRecord record = encode_trellis_record(done.unit);
  UnitResult result;
  result.stats = done.stats;
  result.ledger = record.ledger;
  result.entropy_bits = record.entropy_bits;
  result.source_digest = digest64(loaded.view.bytes);
  Outcome outcome;
  outcome.finished.body = result.to_bytes();
  keep(loaded, outcome.finished, record.bytes);
  return outcome;
}

Outcome Executor::copy(const LoadedTask& loaded) {
  const CopyOrder order = CopyOrder::from_bytes(loaded.task.body);
  const bool kept = order.from.length == 0;
  const std::span<const std::byte> bytes = kept ? loaded.view.bytes : loaded.record;
  CopyResult result;
  result.intact = kept || !bytes.empty();
  result.bytes = bytes.size();
  if (result.intact) {
    if (!output_ || output_->path() != order.output) output_ = File(order.output, File::Mode::update);
    result.digest = kept ? digest64(bytes) : order.from.digest;
    output_->write(order.address, bytes);
  }
  Outcome outcome;
  outcome.finished.key = loaded.task.key;
  outcome.finished.identity = order.origin;
  outcome.finished.body = result.to_bytes();
  if (result.intact) spool_.append(outcome.finished, {});  // a later run goes on with this file
  return outcome;
}

Outcome Executor::check(const LoadedTask& loaded) {
  Outcome outcome;
  keep(loaded, outcome.finished, {});
  return outcome;
}

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

void Executor::keep(const LoadedTask& loaded, Finished& finished, std::span<const std::byte> payload) {
  finished.key = loaded.task.key;
  finished.identity = task_identity(context_, loaded.task);
  finished.source = loaded.task.source;
  if (!loaded.view.bytes.empty()) {
    finished.elements = elements_identity(context_, loaded.task.key.subject);
    finished.source = source_of(loaded);
  }
  spool_.append(finished, payload);
}

Outcome Executor::compare(const LoadedTask& loaded) {
  const CopyOrder order = CopyOrder::from_bytes(loaded.task.body);
  const CopyResult result{digest64(loaded.record) == order.from.digest, order.from.digest, order.from.length};
  Outcome outcome;
  outcome.finished.key = loaded.task.key;
  outcome.finished.body = result.to_bytes();
  return outcome;
}

Outcome Executor::sync(const LoadedTask& loaded) {
  if (output_) {
    output_->sync();
    output_->close();
    output_.reset();
  }
  Outcome outcome;
  outcome.finished.key = loaded.task.key;
  return outcome;
}

void Executor::refuse_nonfinite(const WorkUnit& unit) const {
  refuse_first_nonfinite(context_.reader, info_of(unit), unit.begin + unit.count);
  fail(Errc::io, fmt::format("tensor '{}': its values changed while they were read", printable(info_of(unit).name)));
}

void refuse_first_nonfinite(const Reader& reader, const TensorInfo& tensor, std::uint64_t end) {
  std::vector<std::byte> scratch;
  for (std::uint64_t begin = 0; begin < end; begin += kUnitWeights) {
    const TensorView view = reader.view(tensor, begin, std::min(kUnitWeights, end - begin), scratch);
    const auto index = first_nonfinite(view);
    if (!index) continue;
    const std::size_t width = bits(view.dtype) / 8;
    float value = 0;
    widen(view.dtype, view.bytes.subspan(static_cast<std::size_t>(*index) * width, width), {&value, 1});
    fail(Errc::malformed, fmt::format("{}: tensor '{}': element {} is {}, only finite weights can be quantized "
                                      "(--nonfinite keep stores such tensors raw)",
                                      printable(reader.catalogue().shards[tensor.shard].name), printable(tensor.name),
                                      begin + *index, value));
  }
}

}  // namespace lmq
