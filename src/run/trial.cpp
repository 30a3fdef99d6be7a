#include "trial.hpp"

#include <algorithm>

#include "lmq/base/math.hpp"
#include "lmq/codec/record.hpp"
#include "lmq/codec/trellis_record.hpp"
#include "lmq/quant/unit.hpp"

namespace lmq {
namespace {

constexpr std::uint64_t kMostWindows = 8;

bool by_rows(const QuantSpec& spec) { return spec.granularity >= Granularity::row; }

/// Weights that a window has a multiple of.
std::uint64_t grain_of(const TensorPlan& tensor) {
  if (tensor.lane_rows > 0) return tensor.lane_rows * tensor.cols;
  return by_rows(tensor.spec) ? tensor.cols : 1;
}

/// A part of about `most` weights from the middle of a unit.
WorkUnit middle_of(WorkUnit unit, std::uint64_t grain, std::uint64_t most) {
  const std::uint64_t grains = ceil_div(unit.count, grain), wanted = std::max<std::uint64_t>(1, most / grain);
  if (wanted >= grains) return unit;
  const std::uint64_t first = (grains - wanted) / 2 * grain, end = unit.begin + unit.count;
  unit.begin += first;
  unit.count = std::min(wanted * grain, end - unit.begin);
  return unit;
}

/// A record has its codebook once, however many weights it serves; those of rows and groups, factors and a layer's steps
/// grow with its rows.
bool has_codebook_once(const QuantSpec& spec, const QuantizedUnit& unit) {
  return !by_rows(spec) && unit.kind != CodebookKind::rank1;
}

/// once: bytes of the record, beside header and tables, that do not grow with it.
void add(const EncodedRecord& record, const UnitStats& stats, bool whole_bits, std::uint64_t once, Trial& trial) {
  const RecordLedger& ledger = record.ledger;
  const double codes = whole_bits ? 8 * static_cast<double>(ledger.codes) : record.entropy_bits;
  const std::uint64_t books = ledger.codebooks - once;
  trial.bits += codes + 8 * static_cast<double>(books);
  trial.overhead += static_cast<double>(ledger.total() - books) - codes / 8;
  trial.records += 1;
  trial.loss += stats.loss();
  trial.squared_error += stats.squared_error;
  trial.energy += stats.energy;
}

}  // namespace

TrialWindows::TrialWindows(const RunContext& context, const TensorPlan& tensor, std::uint64_t most)
    : plan_(context.plan), tensor_(tensor) {
  // A row or lane that is longer than all that is wanted is one window.
  const std::uint64_t used =
      std::clamp<std::uint64_t>(std::min(tensor.units, most / grain_of(tensor)), 1, kMostWindows);
  const std::uint64_t all = tensor.rows * tensor.cols;
  const std::uint64_t each = all <= most ? all : std::max<std::uint64_t>(1, most / used);
  const std::uint64_t windows = all <= most ? tensor.units : used;
  for (std::uint64_t w = 0; w < windows; ++w) {
    const WorkUnit& unit = context.plan.units[tensor.first_unit + w * tensor.units / windows];
    const WorkUnit part = middle_of(unit, grain_of(tensor), each);
    whole_ = whole_ && part.count == unit.count;
    load(context, part);
  }
  whole_ = whole_ && windows == tensor.units;
}

void TrialWindows::load(const RunContext& context, const WorkUnit& part) {
  windows_.push_back(std::make_unique<Window>());
  Window& window = *windows_.back();
  window.part = part;
  const TensorInfo& info = context.reader.catalogue().tensors[tensor_.tensor];
  window.view = context.reader.view(as_stored(info, tensor_.treatment), part.begin, part.count, window.bytes);
  window.importance = load_importance(context, part, window.importance_window, Curvature::no);
  finite_ = finite_ && !first_nonfinite(window.view);
}

Trial TrialWindows::run(const QuantSpec& spec, const Codebook* shared) const {
  Trial trial;
  const bool whole_bits = takes_whole_bits(spec.coder);
  Workspace workspace;
  for (const auto& window : windows_) {
    const RowWindow rows = row_window(plan_, window->part, window->view, window->importance, &workspace);
    trial.weights += static_cast<double>(window->view.count);
    if (tensor_.lane_rows > 0) {
      const LayerOutcome done = quantize_layer_unit(rows, spec);
      add(encode_trellis_record(done.unit), done.stats, true, 0, trial);
      continue;
    }
    const UnitOutcome done = quantize_unit(rows, spec, shared);
    const EncodedRecord record = encode_record(done.unit, spec.coder);
    const std::uint64_t once = has_codebook_once(spec, done.unit) ? record.ledger.codebooks : 0;
    add(record, done.stats, whole_bits, once, trial);
    trial.levels = std::max<std::size_t>(trial.levels, done.unit.levels);
    trial.numbers = std::max(trial.numbers, done.unit.book.size());
  }
  return trial;
}

}  // namespace lmq
