#include "schedule.hpp"

#include <algorithm>
#include <numeric>

#include "lmq/base/math.hpp"

namespace lmq {
namespace {

// How far a rank may look for a unit whose bytes it has read before.
constexpr std::size_t kLookAhead = 64;
// Part of a unit's estimated time that goes to measuring.
constexpr double kMeasurePart = 0.25;

}  // namespace

Schedule::Schedule(const Plan& plan, std::uint64_t most_open)
    : plan_(plan), most_open_(most_open), scopes_(plan.scopes.size()), units_(plan.units.size()) {
  for (std::size_t unit = 0; unit < units_.size(); ++unit) {
    const TensorPlan& tensor = plan.tensors[plan.units[unit].tensor];
    if (tensor.treatment != Treatment::quantize) continue;
    units_[unit].to_quantize = true;
    units_[unit].scope = tensor.scope;
    ++unquantized_;
    weights_to_quantize_ += plan.units[unit].count;
  }
  collect_scopes();
  collect_free_units();
}

void Schedule::collect_scopes() {
  std::vector<double> cost(scopes_.size());
  for (std::size_t s = 0; s < scopes_.size(); ++s) {
    ScopeState& scope = scopes_[s];
    for (const std::uint32_t index : plan_.scopes[s].tensors) {
      const TensorPlan& tensor = plan_.tensors[index];
      for (std::uint64_t unit = tensor.first_unit; unit < tensor.first_unit + tensor.units; ++unit) {
        units_[unit].position = narrow<std::uint32_t>(scope.units.size(), "units of a scope");
        scope.units.push_back(unit);
        cost[s] += plan_.units[unit].seconds;
        weights_to_measure_ += plan_.units[unit].count;
      }
    }
    scope.measured.assign(scope.units.size(), false);
    scope.missing = scope.units.size();
    scope.budgeted = plan_.scopes[s].spec.budgeted && !scope.units.empty();
    uncurved_ += scope.budgeted;
    if (scope.units.empty())
      scope.solved = true;
    else
      ++unsolved_;
  }
  opening_.resize(scopes_.size());
  std::iota(opening_.begin(), opening_.end(), std::uint64_t{0});
  std::stable_sort(opening_.begin(), opening_.end(),
                   [&](std::uint64_t a, std::uint64_t b) { return cost[a] > cost[b]; });
}

void Schedule::collect_free_units() {
  for (std::uint64_t unit = 0; unit < units_.size(); ++unit)
    if (units_[unit].to_quantize && units_[unit].scope < 0) free_.push_back(unit);
  std::stable_sort(free_.begin(), free_.end(),
                   [&](std::uint64_t a, std::uint64_t b) { return plan_.units[a].seconds > plan_.units[b].seconds; });
}

std::optional<Task> Schedule::next(int rank) {
  if (auto task = next_solve()) return task;
  if (auto task = next_again()) return task;
  if (auto task = next_ready(rank)) return task;
  if (auto task = next_opening()) return task;
  return next_free();
}

std::optional<Task> Schedule::next_solve() {
  while (!solves_.empty()) {
    const std::uint64_t s = solves_.front();
    solves_.pop_front();
    const ScopeState& scope = scopes_[s];
    if (scope.solved || scope.missing > 0) continue;
    // Solving costs little beside measuring; the estimate only keeps a second one from being dealt behind it.
    constexpr double kSeconds = 0.1;
    if (scope.budgeted && scope.version == 0) {
      if (scope.curved) continue;
      const bool layers = plan_.scopes[s].layers;
      return Task{{TaskKind::curve, s, 0}, layers ? scope.spreads.to_bytes() : scope.base.to_bytes(), kSeconds};
    }
    SolveOrder order;
    if (scope.budgeted) order.options = scope.options;
    if (lacks_histogram(s))
      order.place = scope.place;
    else
      order.histogram = scope.base.to_bytes();
    return Task{{TaskKind::solve, s, scope.round}, order.to_bytes(), kSeconds};
  }
  return std::nullopt;
}

std::optional<Task> Schedule::next_again() {
  while (!again_.empty()) {
    const std::uint64_t unit = again_.front();
    again_.pop_front();
    const ScopeState& scope = scopes_[static_cast<std::size_t>(units_[unit].scope)];
    if (!scope.solved && !scope.measured[units_[unit].position]) return measure_task(unit);
  }
  return std::nullopt;
}

std::optional<Task> Schedule::next_ready(int rank) {
  while (!ready_.empty() && units_[ready_.front()].quantized) ready_.pop_front();
  if (ready_.empty()) return std::nullopt;
  const auto last = ready_.begin() + static_cast<std::ptrdiff_t>(std::min(ready_.size(), kLookAhead));
  auto found = std::find_if(ready_.begin(), last, [&](std::uint64_t unit) {
    return units_[unit].measured_by == rank && !units_[unit].quantized;
  });
  if (found == last) found = ready_.begin();
  const std::uint64_t unit = *found;
  ready_.erase(found);
  return quantize_task(unit);
}

std::optional<Task> Schedule::next_opening() {
  if (restored_ && opening_position_ == 0) {
    // Scopes that an earlier run opened come first: they count as open, and only their solves make room for others.
    std::stable_partition(opening_.begin(), opening_.end(), [&](std::uint64_t s) { return scopes_[s].open; });
    restored_ = false;
  }
  while (!opening_.empty()) {
    ScopeState& scope = scopes_[opening_.front()];
    if (!scope.open && !scope.solved && open_scopes_ >= most_open_) return std::nullopt;
    while (!scope.solved && scope.round == 0 && opening_position_ < scope.units.size()) {
      const std::size_t position = opening_position_++;
      if (scope.measured[position]) continue;
      open(scope);
      return measure_task(scope.units[position]);
    }
    opening_.pop_front();
    opening_position_ = 0;
  }
  return std::nullopt;
}

std::optional<Task> Schedule::next_free() {
  while (!free_.empty()) {
    const std::uint64_t unit = free_.front();
    free_.pop_front();
    if (!units_[unit].quantized) return quantize_task(unit);
  }
  return std::nullopt;
}

Task Schedule::measure_task(std::uint64_t unit) const {
  const ScopeState& scope = scopes_[static_cast<std::size_t>(units_[unit].scope)];
  std::vector<std::byte> ranges;
  if (scope.round > 0) ranges = ranges_to_bytes(scope.ranges);
  return {{TaskKind::measure, unit, scope.round}, std::move(ranges), kMeasurePart * plan_.units[unit].seconds};
}

Task Schedule::quantize_task(std::uint64_t unit) const {
  const std::int64_t scope = units_[unit].scope;
  Task task{{TaskKind::quantize, unit, version(unit)}, {}, plan_.units[unit].seconds};
  QuantizeOrder order;
  if (scope >= 0) {
    const ScopeState& state = scopes_[static_cast<std::size_t>(scope)];
    if (state.budgeted) order.options = state.options;
    if (plan_.scopes[static_cast<std::size_t>(scope)].shares_codebook()) order.codebook = state.codebook;
    task.seconds *= 1 - kMeasurePart;
  }
  task.body = order.to_bytes();
  return task;
}

std::uint32_t Schedule::version(std::uint64_t unit) const {
  const std::int64_t scope = units_[unit].scope;
  return scope < 0 ? 0 : scopes_[static_cast<std::size_t>(scope)].version;
}

bool Schedule::lacks_histogram(std::uint64_t scope) const {
  return scopes_[scope].version > 0 && !scopes_[scope].supplied;
}

void Schedule::supply(std::uint64_t scope, ValueHistogram histogram) {
  scopes_[scope].base = std::move(histogram);
  scopes_[scope].supplied = true;
}

void Schedule::histogram_lost(std::uint64_t s) {
  ScopeState& scope = scopes_[s];
  if (scope.solved || scope.version == 0 || scope.measured_again) return;
  scope.base = ValueHistogram(), scope.finer = ValueHistogram();  // one by one: a copy of an empty one keeps its memory
  scope.ranges.clear();
  scope.supplied = false;
  scope.measured_again = true;
  scope.measured.assign(scope.units.size(), false);
  scope.missing = scope.units.size();
  open(scope);
  again_.insert(again_.end(), scope.units.begin(), scope.units.end());
}

std::optional<QuantizerOptions> Schedule::options_of(std::uint64_t scope) const {
  if (!scopes_[scope].budgeted || scopes_[scope].version == 0) return std::nullopt;
  return scopes_[scope].options;
}

void Schedule::curved(std::uint64_t s, const SpoolPlace& place) {
  ScopeState& scope = scopes_[s];
  if (!scope.budgeted || scope.curved) return;
  for (const std::uint64_t unit : scope.units)  // an earlier run measured what is missing here
    if (!scope.measured[units_[unit].position]) weights_measured_ += plan_.units[unit].count;
  scope.measured.assign(scope.units.size(), true);
  scope.missing = 0;
  scope.curved = true;
  scope.place = place;
  close(scope);
  --uncurved_;
}

void Schedule::begin(std::uint64_t s, const QuantizerOptions& options) {
  ScopeState& scope = scopes_[s];
  if (!scope.curved) fail(Errc::internal, "options were chosen for a scope that is not measured");
  scope.options = options;
  ++scope.version;
  scope.round = scope.version << 16;
  unsolved_ += scope.solved;
  scope.solved = false;
  for (const std::uint64_t unit : scope.units) {
    if (!units_[unit].quantized) continue;
    units_[unit].quantized = false;
    ++unquantized_;
    weights_to_quantize_ += plan_.units[unit].count;
  }
  if (plan_.scopes[s].shares_codebook())
    solves_.push_back(s);
  else
    mark_solved(scope);
}

void Schedule::close(ScopeState& scope) noexcept {
  if (scope.open) --open_scopes_;
  scope.open = scope.supplied = false;
  scope.base = ValueHistogram(), scope.finer = ValueHistogram();  // one by one: a copy of an empty one keeps its memory
  scope.spreads = {};
  std::vector<KeyRange>().swap(scope.ranges);
}

void Schedule::mark_solved(ScopeState& scope) {
  scope.solved = true;
  close(scope);
  --unsolved_;
  for (const std::uint64_t unit : scope.units)
    if (!units_[unit].quantized) ready_.push_back(unit);
}

bool Schedule::awaits_measure(std::uint64_t unit, std::uint32_t round) const {
  if (unit >= units_.size() || units_[unit].scope < 0) return false;
  const ScopeState& scope = scopes_[static_cast<std::size_t>(units_[unit].scope)];
  return !scope.solved && scope.round == round && !scope.measured[units_[unit].position];
}

void Schedule::measured(std::uint64_t unit, std::uint32_t round, const ValueHistogram& histogram, int rank) {
  note_measured(unit, round, rank, [&](ScopeState& scope) {
    (round == 0 || scope.measured_again ? scope.base : scope.finer).merge(histogram);
  });
}

void Schedule::measured(std::uint64_t unit, std::uint32_t round, const SpreadHistogram& histogram, int rank) {
  note_measured(unit, round, rank, [&](ScopeState& scope) { scope.spreads.merge(histogram); });
}

template <class Merge>
void Schedule::note_measured(std::uint64_t unit, std::uint32_t round, int rank, const Merge& merge) {
  if (!awaits_measure(unit, round)) return;
  const auto s = static_cast<std::uint64_t>(units_[unit].scope);
  ScopeState& scope = scopes_[s];
  restored_ = restored_ || !scope.open;
  open(scope);
  merge(scope);
  scope.measured[units_[unit].position] = true;
  if (rank >= 0) units_[unit].measured_by = rank;
  if (round == 0) weights_measured_ += plan_.units[unit].count;
  if (--scope.missing == 0) close_round(s);
}

void Schedule::close_round(std::uint64_t s) {
  ScopeState& scope = scopes_[s];
  if (scope.measured_again) {
    scope.measured_again = false;
    scope.supplied = true;
  } else if (scope.round > 0) {
    scope.base.refine(scope.finer, scope.ranges);
    scope.finer = ValueHistogram();
    scope.ranges.clear();
  }
  solves_.push_back(s);
}

void Schedule::open(ScopeState& scope) noexcept {
  if (!scope.open) ++open_scopes_;
  scope.open = true;
}

void Schedule::solved(std::uint64_t s, std::uint32_t round, const Fit& fit) {
  if (s >= scopes_.size() || scopes_[s].solved || round >> 16 != scopes_[s].version) return;
  ScopeState& scope = scopes_[s];
  if (fit.refine.empty()) {
    // Final whatever is still missing here: an earlier run had it all.
    if (scope.round == 0)
      for (const std::uint64_t unit : scope.units)
        if (!scope.measured[units_[unit].position]) weights_measured_ += plan_.units[unit].count;
    scope.codebook = fit.codebook;
    mark_solved(scope);
    return;
  }
  if (scope.round != round || scope.missing > 0 || scope.measured_again) return;
  scope.ranges = fit.refine;
  ++scope.round;
  scope.measured.assign(scope.units.size(), false);
  scope.missing = scope.units.size();
  again_.insert(again_.end(), scope.units.begin(), scope.units.end());
}

void Schedule::quantized(std::uint64_t unit) {
  if (unit >= units_.size() || !units_[unit].to_quantize || units_[unit].quantized) return;
  units_[unit].quantized = true;
  --unquantized_;
  weights_quantized_ += plan_.units[unit].count;
}

void Schedule::lost(std::uint64_t unit) {
  if (unit >= units_.size() || !units_[unit].quantized) return;
  units_[unit].quantized = false;
  ++unquantized_;
  weights_quantized_ -= plan_.units[unit].count;
  const std::int64_t scope = units_[unit].scope;
  if (scope < 0)
    free_.push_back(unit);
  else if (scopes_[static_cast<std::size_t>(scope)].solved)
    ready_.push_back(unit);
}

const Codebook& Schedule::codebook(std::uint64_t scope) const {
  if (scope >= scopes_.size() || !scopes_[scope].solved)
    fail(Errc::internal, "a codebook was asked for before it was solved");
  return scopes_[scope].codebook;
}

}  // namespace lmq
