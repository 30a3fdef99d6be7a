#include "coordinator.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "lmq/base/text.hpp"
#include "lmq/plan/costs.hpp"
#include "lmq/run/spool.hpp"
#include "task_type.hpp"

namespace lmq {
namespace {

// What phases cost relative to each other; for the progress line only.
constexpr double kMeasureCost = 0.25, kQuantizeCost = 1, kCopyCostPerByte = 0.4;

}  // namespace

// More than 5 parameters: parts of a run that outlive it.
Coordinator::Coordinator(Comm& comm, const RunContext& context, LayoutFormat& format, const RunOptions& options,
                         const RunLock& lock, WorkDir& work_dir)
    : comm_(comm),
      context_(context),
      format_(format),
      options_(options),
      schedule_(context.plan, kOpenScopesPerRank * static_cast<std::uint64_t>(comm.size())),
      restored_(context, work_dir),
      scope_sources_(context.plan.scopes.size()),
      chosen_plan_(context.plan.target_bytes > 0 ? std::optional(context.plan) : std::nullopt),
      units_(context.plan.units.size()),
      spooled_(context.plan.units.size()),
      contents_{context.reader.catalogue(),
                chosen_plan_ ? *chosen_plan_ : context.plan,
                units_,
                codebooks_,
                options.recipe_json,
                options.provenance_json},
      lock_(lock),
      run_(work_dir.run()),
      dealer_(comm.size()),
      rank_times_(static_cast<std::size_t>(comm.size())),
      made_again_(context.plan.units.size(), false),
      progress_(options.progress) {
  if (chosen_plan_) budget_.emplace(context.plan);
  look_at_parts();
  next_check_ = restored_.next_to_check();
  if (!next_check_) restore();
}

void Coordinator::start_budget() {
  budget_started_ = true;
  begin(budget_->choose(
      bytes_beside(contents_.catalogue, context_.plan, options_.recipe_json, options_.provenance_json, format_)));
}

void Coordinator::begin(const std::vector<Budget::Choice>& choices) {
  for (const auto& [scope, options] : choices) {
    schedule_.begin(scope, options);
    for (const std::uint32_t index : context_.plan.scopes[scope].tensors) {
      TensorPlan& tensor = chosen_plan_->tensors[index];
      tensor.spec.options = options;
      for (std::uint64_t unit = tensor.first_unit; unit < tensor.first_unit + tensor.units; ++unit)
        made_again_[unit] = false;
    }
    if (context_.plan.scopes[scope].shares_codebook())
      restore_fit(scope);
    else
      for (const std::uint64_t unit : schedule_.units_of(scope)) restore_record(unit);
  }
}

void Coordinator::solved(const TaskKey& key, const Fit& fit) {
  if (!fit.refine.empty() && schedule_.lacks_histogram(key.subject)) {
    SpoolFiles spools(context_.work_dir);
    std::vector<std::byte> buffer;
    const auto bytes = spools.read(schedule_.histogram_place(key.subject), buffer);
    if (bytes.empty()) return schedule_.histogram_lost(key.subject);
    schedule_.supply(key.subject, ValueHistogram::from_bytes(bytes, "spool of this run"));
  }
  schedule_.solved(key.subject, key.round, fit);
  if (schedule_.is_solved(key.subject))
    for (const std::uint64_t unit : schedule_.units_of(key.subject)) restore_record(unit);
}

void Coordinator::on_message(const Message& message) {
  switch (message_type_of(message.bytes)) {
    case MessageType::result:
      take(message.from, outcome_of(message.bytes));
      break;
    case MessageType::failed:
      stop(status_of(message.bytes));
      break;
    case MessageType::interrupted:
      stop(status_of(message.bytes));
      break;
    case MessageType::done:
      ++done_ranks_;
      rank_times_[static_cast<std::size_t>(message.from)] = times_of(message.bytes);
      break;
    case MessageType::task:
    case MessageType::stop:
      break;  // for the rank, not for its coordinator
  }
}

void Coordinator::take(int from, const Outcome& outcome) {
  const TaskKey& key = outcome.finished.key;
  dealer_.returned(from, key);
  if (stopping_) return;
  if (const auto take_kind = type_of(key).take) take_kind(*this, from, outcome);
  ++results_;
  if (options_.stop_after && options_.stop_after(results_))
    stop({static_cast<int>(Errc::interrupted), "interrupted: run the same command again to continue"});
}

void Coordinator::take_source(const Finished& finished) { restored_.read(finished.key.subject, finished.source); }

void Coordinator::take_measured(const Finished& finished, std::span<const std::byte> histogram, int from) {
  take_source(finished);
  if (schedule_.awaits_measure(finished.key.subject, finished.key.round))
    take_histogram(finished.key, histogram, "histogram of another rank", from);
}

void Coordinator::take_solved(const Finished& finished) {
  if (finished.body.empty())
    schedule_.histogram_lost(finished.key.subject);
  else
    solved(finished.key, fit_from_bytes(finished.body, "codebook of another rank"));
}

void Coordinator::take_histogram(const TaskKey& key, std::span<const std::byte> bytes, const char* source, int from) {
  const WorkUnit& unit = context_.plan.units.at(key.subject);
  if (context_.plan.tensors[unit.tensor].lane_rows > 0)
    schedule_.measured(key.subject, key.round, SpreadHistogram::from_bytes(bytes, source), from);
  else
    schedule_.measured(key.subject, key.round, ValueHistogram::from_bytes(bytes, source), from);
}

void Coordinator::take_record(const Finished& finished, bool resumed) {
  const std::uint64_t unit = finished.key.subject;
  if (unit >= units_.size() || schedule_.is_quantized(unit) || schedule_.version(unit) != finished.key.round) return;
  squared_error_ -= units_[unit].result.stats.squared_error, energy_ -= units_[unit].result.stats.energy;
  units_[unit] = {
      finished.place.length, finished.place.digest,
      UnitResult::from_bytes(finished.body, resumed ? "journal of an earlier run" : "result of another rank")};
  squared_error_ += units_[unit].result.stats.squared_error, energy_ += units_[unit].result.stats.energy;
  spooled_[unit] = finished.place;
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
  if (budget_ && !budget_started_ && phase_ == Phase::computing && schedule_.all_curved()) start_budget();
  bool busy = deal();
  if (progress_.due()) progress_.tell(snapshot());
  if (busy || stopping_ || !dealer_.all_back()) return busy;
  if (phase_ == Phase::checking) {
    restore();
    return true;
  }
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
    if (!commit_->lost().empty())
      make_lost_again();
    else
      phase_ = Phase::comparing;
    return true;
  }
  if (phase_ == Phase::comparing) {
    if (commit_->all_copied())
      end_commit();
    else
      phase_ = Phase::copying;  // some once more
    return true;
  }
  return false;
}

std::optional<Task> Coordinator::next(int rank) {
  if (stopping_) return std::nullopt;  // the time limit came since the last look; there is no commit any more
  if (phase_ == Phase::checking) return next_check();
  if (phase_ == Phase::computing) return next_of_schedule(rank);
  if (phase_ == Phase::copying) return commit_->next(rank);
  if (phase_ == Phase::comparing) return commit_->next_to_compare();
  if (synced_[static_cast<std::size_t>(rank)]) return std::nullopt;
  synced_[static_cast<std::size_t>(rank)] = true;
  return Task{{TaskKind::sync, static_cast<std::uint64_t>(rank), 0}, {}, 0};
}

std::optional<Task> Coordinator::next_check() {
  if (!next_check_) return std::nullopt;
  const std::uint64_t unit = *std::exchange(next_check_, restored_.next_to_check());
  return Task{{TaskKind::check, unit, 0}, {}, kMeasureCost * context_.plan.units[unit].seconds};
}

std::optional<Task> Coordinator::next_of_schedule(int rank) {
  std::optional<Task> task = schedule_.next(rank);
  if (!task || type_of(task->key).subject != TaskType::Subject::scope) return task;
  std::uint64_t& source = scope_sources_[task->key.subject];
  if (source == 0) source = restored_.source_of(schedule_.units_of(task->key.subject));
  task->source = source;
  return task;
}

bool Coordinator::deal() {
  return dealer_.deal([this](int rank) { return next(rank); },
                      [this](int rank, const Task& task) { comm_.send(rank, task_message(task)); },
                      phase_ == Phase::syncing ? Dealer::Dry::for_rank : Dealer::Dry::for_all);
}

void Coordinator::begin_commit() {
  codebooks_.clear();
  for (std::uint64_t scope = 0; scope < context_.plan.scopes.size(); ++scope)
    codebooks_.push_back(&schedule_.codebook(scope));
  Commit::Begun begun;
  if (!parts_left_.empty()) {
    const std::string origin = origin_of_part(options_.output, parts_left_.back());
    begun.part = {options_.output.parent_path() / parts_left_.back(), part_path(options_.output, origin, lock_.run())};
    begun.copied = restored_.copied_into(origin);
  }
  commit_.emplace(contents_, spooled_, format_, options_.output, Commit::Ranks{comm_.size(), run_, lock_.run()}, begun);
  if (commit_->adopted()) parts_left_.pop_back();
  if (budget_ && over_budget()) return;
  phase_ = Phase::copying;
}

/// Whether the file is not yet as large as it shall be; then what has to be done again is under way.
bool Coordinator::over_budget() {
  std::vector<std::uint64_t> record_bytes(context_.plan.scopes.size());
  std::vector<double> losses(context_.plan.scopes.size());
  for (const std::uint64_t scope : budget_->scopes())
    for (const std::uint32_t index : context_.plan.scopes[scope].tensors) {
      const TensorPlan& tensor = context_.plan.tensors[index];
      for (std::uint64_t unit = tensor.first_unit; unit < tensor.first_unit + tensor.units; ++unit)
        record_bytes[scope] += units_[unit].bytes, losses[scope] += units_[unit].result.stats.loss();
    }
  const auto choices = budget_->correct(commit_->file_bytes(), record_bytes, losses);
  if (choices.empty()) return false;
  commit_.reset();
  begin(choices);
  return true;
}

void Coordinator::end_commit() {
  commit_->finish(context_.reader, options_.output, lock_);
  for (const std::string& part : parts_left_) remove_part(part);
  tensors_ = commit_->tensors();
  file_bytes_ = commit_->file_bytes();
  stop({});
}

/// The spools hold other bytes than were written to them. Records are functions of the unit, so they are made once
/// more.
void Coordinator::make_lost_again() {
  for (const std::uint64_t unit : commit_->lost()) {
    const SpoolPlace& place = spooled_[unit];
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
  if (minutes >= options_.max_minutes && phase_ < Phase::syncing)
    stop({static_cast<int>(Errc::interrupted),
          fmt::format("interrupted after {} as --max-time asked: run the same command "
                      "again to continue",
                      format_duration(60 * minutes))});
}

void Coordinator::stop(const RunStatus& status) {
  if (stopping_) return;
  stopping_ = true;
  stopped_ = Clock::now();
  if (commit_ && status.code == static_cast<int>(Errc::interrupted)) commit_->keep();
  commit_.reset();  // removes an unfinished file that is not kept
  for (int rank = 0; rank < comm_.size(); ++rank) comm_.send(rank, status_message(MessageType::stop, status));
}

double Coordinator::seconds_stopping() const {
  return stopping_ ? std::chrono::duration<double>(Clock::now() - stopped_).count() : 0;
}

ProgressSnapshot Coordinator::snapshot() const {
  const auto weight = [](std::uint64_t count, double cost) { return static_cast<double>(count) * cost; };
  double total =
      weight(schedule_.weights_to_measure(), kMeasureCost) + weight(schedule_.weights_to_quantize(), kQuantizeCost);
  double done =
      weight(schedule_.weights_measured(), kMeasureCost) + weight(schedule_.weights_quantized(), kQuantizeCost);
  // Before the layout is made, half a byte per weight will do as a guess of what is to be written.
  const std::uint64_t to_copy = commit_ ? commit_->bytes_to_copy() : schedule_.weights_to_quantize() / 2;
  total += weight(to_copy, kCopyCostPerByte);
  if (commit_) done += weight(commit_->bytes_copied(), kCopyCostPerByte);
  ProgressSnapshot snapshot;
  snapshot.phase = phase_ == Phase::comparing || phase_ == Phase::checking ? "checking"
                   : phase_ != Phase::computing                            ? "writing"
                   : schedule_.weights_measured() < schedule_.weights_to_measure() && schedule_.weights_quantized() == 0
                       ? "measuring"
                       : "quantizing";
  snapshot.done = total > 0 ? done / total : 1;
  snapshot.done_before = done_before_;
  snapshot.weights = weights_done_;
  snapshot.source_bytes = bytes_done_;
  snapshot.squared_error = squared_error_, snapshot.energy = energy_;
  return snapshot;
}

RunReport Coordinator::report() {
  RunReport report;
  report.tensors = std::move(tensors_);
  report.file_bytes = file_bytes_;
  for (const TensorLine& tensor : report.tensors) report.source_bytes += tensor.source_bytes;
  report.seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  report.units_resumed = units_resumed_;
  report.ranks = rank_times_;
  report.units_done = context_.plan.units.size() - units_resumed_;
  return report;
}

}  // namespace lmq
