#include "lmq/run/coordinator.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "lmq/base/text.hpp"
#include "lmq/plan/costs.hpp"
#include "lmq/run/spool.hpp"

namespace lmq {
namespace {

// A rank has at least so many tasks: one in hand, one whose input is read meanwhile ...
constexpr int kLeastDealt = 2;
// ... and, when they are short, so many that the next message comes before it runs dry.
constexpr int kMostDealt = 32;
constexpr double kDealtSeconds = 0.05;
// What phases cost relative to each other; for the progress line only.
constexpr double kMeasureCost = 0.25, kQuantizeCost = 1, kCopyCostPerByte = 0.4;

constexpr const char* kJournal = "journal of an earlier run";

}  // namespace

Coordinator::Coordinator(Comm& comm, const RunContext& context, LayoutFormat& format, const RunOptions& options,
                         WorkDir& work_dir)
    : comm_(comm),
      context_(context),
      format_(format),
      options_(options),
      schedule_(context.plan, kOpenScopesPerRank * static_cast<std::uint64_t>(comm.size())),
      chosen_plan_(context.plan.target_bytes > 0 ? std::optional(context.plan) : std::nullopt),
      units_(context.plan.units.size()),
      contents_{context.reader.catalogue(),
                chosen_plan_ ? *chosen_plan_ : context.plan,
                units_,
                codebooks_,
                options.recipe_json,
                options.provenance_json},
      run_(work_dir.run()),
      dealt_(static_cast<std::size_t>(comm.size())),
      made_again_(context.plan.units.size(), false),
      progress_(options.progress) {
  if (chosen_plan_) {
    std::uint64_t raw = 0;
    for (const TensorPlan& tensor : context.plan.tensors)
      if (tensor.treatment == Treatment::keep) raw += context.reader.catalogue().tensors[tensor.tensor].bytes;
    budget_.emplace(context.plan, raw);
  }
  restore(work_dir.results());
  done_before_ = standing().done;
}

void Coordinator::restore(std::vector<Finished>& results) {
  std::vector<const Finished*> curves;
  for (Finished& finished : results) {
    const TaskKey& key = finished.key;
    if (key.kind == TaskKind::quantize && key.round == 0) take_record(finished, true);
    if (key.kind == TaskKind::quantize && key.round > 0) earlier_.records[{key.subject, key.round}] = finished;
    if (key.kind == TaskKind::measure) earlier_.tallies[{key.subject, key.round}] = finished.place;
    if (key.kind == TaskKind::solve) earlier_.fits[{key.subject, key.round}] = fit_from_bytes(finished.body, kJournal);
    if (key.kind == TaskKind::curve) curves.push_back(&finished);
  }
  for (const Finished* curve : curves) take_curve(*curve);
  results = {};
  for (const auto& [key, fit] : earlier_.fits)
    if (fit.look_closer.empty()) schedule_.solved(key.first, key.second, fit);
  for (std::uint64_t scope = 0; scope < context_.plan.scopes.size(); ++scope) restore_scope(scope);
  earlier_.tallies.clear();
}

void Coordinator::restore_scope(std::uint64_t scope) {
  SpoolFiles spools(context_.work_dir);
  std::vector<std::byte> buffer;
  for (bool closer = true; closer && !schedule_.is_solved(scope) && !schedule_.is_curved(scope);) {
    const std::uint32_t round = schedule_.round(scope);
    for (const std::uint32_t index : context_.plan.scopes[scope].tensors) {
      const TensorPlan& tensor = context_.plan.tensors[index];
      for (std::uint64_t unit = tensor.first_unit; unit < tensor.first_unit + tensor.units; ++unit) {
        const auto found = earlier_.tallies.find({unit, round});
        if (found == earlier_.tallies.end()) continue;
        const auto bytes = spools.read(found->second, buffer);
        if (!bytes.empty()) schedule_.measured(unit, round, Tally::from_bytes(bytes, kJournal));
      }
    }
    const auto fit = earlier_.fits.find({scope, round});
    closer = schedule_.complete(scope) && fit != earlier_.fits.end();
    if (closer) schedule_.solved(scope, round, fit->second);
  }
}

void Coordinator::take_curve(const Finished& finished) {
  const std::uint64_t scope = finished.key.subject;
  if (!budget_ || scope >= context_.plan.scopes.size() || schedule_.is_curved(scope)) return;
  budget_->take_curve(scope, curve_from_bytes(finished.body, kJournal));
  schedule_.curved(scope, finished.place);
}

/// All but the records of floating scopes, before anything is laid out: what is kept, a guess of what other rules
/// store, and of headers, attributes and columns.
std::uint64_t Coordinator::other_bytes() const {
  constexpr std::uint64_t kPerFile = 16384, kPerTensor = 1400, kPerUnit = 96;
  std::uint64_t bytes = kPerFile + kPerUnit * context_.plan.units.size();
  for (const TensorPlan& tensor : context_.plan.tensors) {
    const TensorInfo& info = context_.reader.catalogue().tensors[tensor.tensor];
    bytes += kPerTensor + 3 * info.name.size();
    if (tensor.treatment == Treatment::keep) bytes += info.bytes;
    if (tensor.treatment == Treatment::quantize && !tensor.spec.floating)
      bytes += info.count() * static_cast<unsigned>(std::bit_width(tensor.spec.options.levels - 1)) / 8;
  }
  return bytes;
}

void Coordinator::start_budget() {
  budget_started_ = true;
  begin(budget_->choose(other_bytes()));
}

void Coordinator::begin(const std::vector<Budget::Choice>& choices) {
  for (const auto& [scope, options] : choices) {
    schedule_.begin(scope, options);
    for (const std::uint32_t index : context_.plan.scopes[scope].tensors) {
      TensorPlan& tensor = chosen_plan_->tensors[index];
      tensor.spec.options = options;
      for (std::uint64_t unit = tensor.first_unit; unit < tensor.first_unit + tensor.units; ++unit) {
        made_again_[unit] = false;
        const auto found = earlier_.records.find({unit, schedule_.version(unit)});
        if (found != earlier_.records.end()) take_record(found->second, true);
      }
    }
    if (const auto fit = earlier_.fits.find({scope, schedule_.round(scope)}); fit != earlier_.fits.end())
      solved({TaskKind::solve, scope, schedule_.round(scope)}, fit->second);
  }
}

void Coordinator::solved(const TaskKey& key, const Fit& fit) {
  if (!fit.look_closer.empty() && schedule_.lacks_tally(key.subject)) {
    SpoolFiles spools(context_.work_dir);
    std::vector<std::byte> buffer;
    const auto bytes = spools.read(schedule_.tally_place(key.subject), buffer);
    if (bytes.empty()) fail(Errc::io, "a tally in the work directory is not what was written: remove it, start again");
    schedule_.supply(key.subject, Tally::from_bytes(bytes, kJournal));
  }
  schedule_.solved(key.subject, key.round, fit);
}

void Coordinator::hear(const Message& message) {
  switch (word_of(message.bytes)) {
    case Word::result:
      take(message.from, outcome_of(message.bytes));
      break;
    case Word::failed:
      stop(verdict_of(message.bytes));
      break;
    case Word::interrupted:
      stop(verdict_of(message.bytes));
      break;
    case Word::bye:
      ++byes_;
      break;
    case Word::task:
    case Word::stop:
      break;  // for the rank, not for its coordinator
  }
}

void Coordinator::take(int from, const Outcome& outcome) {
  const TaskKey& key = outcome.finished.key;
  if (const auto found = in_hand_.find(key); found != in_hand_.end()) {
    Dealt& dealt = dealt_[static_cast<std::size_t>(from)];
    --dealt.tasks;
    dealt.seconds -= found->second;
    in_hand_.erase(found);
  }
  if (stopping_) return;
  switch (key.kind) {
    case TaskKind::measure:
      if (schedule_.awaits_measure(key.subject, key.round))
        schedule_.measured(key.subject, key.round, Tally::from_bytes(outcome.tally, "tally of another rank"), from);
      break;
    case TaskKind::solve:
      solved(key, fit_from_bytes(outcome.finished.body, "codebook of another rank"));
      break;
    case TaskKind::quantize:
      take_record(outcome.finished, false);
      break;
    case TaskKind::copy:
      commit_->copied(key.subject, CopyResult::from_bytes(outcome.finished.body));
      break;
    case TaskKind::sync:
      break;
    case TaskKind::curve:
      take_curve(outcome.finished);
      break;
  }
  ++results_;
  if (options_.stop_after && options_.stop_after(results_))
    stop({static_cast<int>(Errc::interrupted), "interrupted: run the same command again to continue"});
}

void Coordinator::take_record(const Finished& finished, bool resumed) {
  const std::uint64_t unit = finished.key.subject;
  if (unit >= units_.size() || schedule_.is_quantized(unit) || schedule_.version(unit) != finished.key.round) return;
  units_[unit] = {finished.place, UnitResult::from_bytes(finished.body, resumed ? kJournal : "result of another rank")};
  schedule_.quantized(unit);
  if (resumed) ++units_resumed_;
  if (resumed || made_again_[unit]) return;
  const WorkUnit& work = context_.plan.units[unit];
  weights_done_ += work.count;
  bytes_done_ += work.count * bits(context_.reader.catalogue().tensors[work.tensor].dtype) / 8;
}

bool Coordinator::advance() {
  if (stopping_) return false;
  check_time();
  if (budget_ && !budget_started_ && schedule_.all_curved()) start_budget();
  bool busy = deal();
  if (progress_.due()) progress_.tell(standing());
  if (busy || stopping_ || !in_hand_.empty()) return busy;
  if (phase_ == Phase::computing && schedule_.finished()) {
    begin_commit();
    return true;
  }
  if (phase_ == Phase::copying && commit_->all_copied()) {
    synced_.assign(static_cast<std::size_t>(comm_.size()), false);
    phase_ = Phase::syncing;
    return true;
  }
  if (phase_ == Phase::syncing) {
    end_commit();
    return true;
  }
  return false;
}

std::optional<Task> Coordinator::next(int rank) {
  if (stopping_) return std::nullopt;  // the time limit came since the last look; there is no commit any more
  if (phase_ == Phase::computing) return schedule_.next(rank);
  if (phase_ == Phase::copying) return commit_->next(rank);
  if (synced_[static_cast<std::size_t>(rank)]) return std::nullopt;
  synced_[static_cast<std::size_t>(rank)] = true;
  return Task{{TaskKind::sync, static_cast<std::uint64_t>(rank), 0}, {}, 0};
}

bool Coordinator::deal() {
  bool busy = false, more = true;
  while (more) {
    more = false;
    for (int rank = 0; rank < comm_.size(); ++rank) {
      Dealt& dealt = dealt_[static_cast<std::size_t>(rank)];
      const bool room = dealt.tasks < kLeastDealt || (dealt.tasks < kMostDealt && dealt.seconds < kDealtSeconds);
      if (!room) continue;
      const std::optional<Task> task = next(rank);
      if (!task) continue;
      ++dealt.tasks;
      dealt.seconds += task->seconds;
      in_hand_[task->key] = task->seconds;
      comm_.send(rank, task_message(*task));
      busy = more = true;
    }
  }
  return busy;
}

void Coordinator::begin_commit() {
  codebooks_.clear();
  for (std::uint64_t scope = 0; scope < context_.plan.scopes.size(); ++scope)
    codebooks_.push_back(&schedule_.codebook(scope));
  commit_.emplace(contents_, format_, options_.output, comm_.size(), run_);
  if (budget_ && over_budget()) return;
  phase_ = Phase::copying;
}

/// Whether the file is not yet as large as it shall be; then what has to be done again is under way.
bool Coordinator::over_budget() {
  std::vector<std::uint64_t> record_bytes(context_.plan.scopes.size());
  for (const std::uint64_t scope : budget_->scopes())
    for (const std::uint32_t index : context_.plan.scopes[scope].tensors) {
      const TensorPlan& tensor = context_.plan.tensors[index];
      for (std::uint64_t unit = tensor.first_unit; unit < tensor.first_unit + tensor.units; ++unit)
        record_bytes[scope] += units_[unit].place.length;
    }
  const auto choices = budget_->correct(commit_->file_bytes(), record_bytes);
  if (choices.empty()) return false;
  commit_.reset();
  begin(choices);
  return true;
}

void Coordinator::end_commit() {
  if (!commit_->lost().empty()) return make_lost_again();
  commit_->finish(context_.reader);
  tensors_ = commit_->tensors();
  file_bytes_ = commit_->file_bytes();
  stop({});
}

/// The spools hold other bytes than were written to them. Records are functions of the unit, so they are made once
/// more.
void Coordinator::make_lost_again() {
  for (const std::uint64_t unit : commit_->lost()) {
    const SpoolPlace& place = units_[unit].place;
    if (made_again_[unit])
      fail(Errc::io, fmt::format("{}: twice, what was written is not what is read back",
                                 (context_.work_dir / spool_name(place.run, place.rank)).string()));
    made_again_[unit] = true;
    schedule_.lost(unit);
  }
  commit_.reset();
  phase_ = Phase::computing;
}

void Coordinator::check_time() {
  if (options_.max_minutes <= 0) return;
  const double minutes = std::chrono::duration<double>(Clock::now() - start_).count() / 60;
  if (minutes >= options_.max_minutes && phase_ != Phase::syncing)
    stop({static_cast<int>(Errc::interrupted),
          fmt::format("interrupted after {} as --max-time asked: run the same command "
                      "again to continue",
                      format_duration(60 * minutes))});
}

void Coordinator::stop(const Verdict& verdict) {
  if (stopping_) return;
  stopping_ = true;
  stopped_ = Clock::now();
  commit_.reset();  // removes an unfinished file
  for (int rank = 0; rank < comm_.size(); ++rank) comm_.send(rank, verdict_message(Word::stop, verdict));
}

double Coordinator::seconds_stopping() const {
  return stopping_ ? std::chrono::duration<double>(Clock::now() - stopped_).count() : 0;
}

Standing Coordinator::standing() const {
  const auto weight = [](std::uint64_t count, double cost) { return static_cast<double>(count) * cost; };
  double total =
      weight(schedule_.weights_to_measure(), kMeasureCost) + weight(schedule_.weights_to_quantize(), kQuantizeCost);
  double done =
      weight(schedule_.weights_measured(), kMeasureCost) + weight(schedule_.weights_quantized(), kQuantizeCost);
  // Before the layout is made, half a byte per weight will do as a guess of what is to be written.
  const std::uint64_t to_copy = commit_ ? commit_->bytes_to_copy() : schedule_.weights_to_quantize() / 2;
  total += weight(to_copy, kCopyCostPerByte);
  if (commit_) done += weight(commit_->bytes_copied(), kCopyCostPerByte);
  Standing standing;
  standing.phase = phase_ != Phase::computing ? "writing"
                   : schedule_.weights_measured() < schedule_.weights_to_measure() && schedule_.weights_quantized() == 0
                       ? "measuring"
                       : "quantizing";
  standing.done = total > 0 ? done / total : 1;
  standing.done_before = done_before_;
  standing.weights = weights_done_;
  standing.source_bytes = bytes_done_;
  return standing;
}

RunReport Coordinator::report() {
  RunReport report;
  report.tensors = std::move(tensors_);
  report.file_bytes = file_bytes_;
  for (const TensorReport& tensor : report.tensors) report.source_bytes += tensor.source_bytes;
  report.seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  report.units_resumed = units_resumed_;
  report.units_done = context_.plan.units.size() - units_resumed_;
  return report;
}

}  // namespace lmq
