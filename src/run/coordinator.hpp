#pragma once
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "commit.hpp"
#include "dealer.hpp"
#include "lmq/run/budget.hpp"
#include "lmq/run/comm.hpp"
#include "lmq/run/executor.hpp"
#include "lmq/run/quantize_run.hpp"
#include "lmq/run/run_lock.hpp"
#include "lmq/run/work_dir.hpp"
#include "progress.hpp"
#include "protocol.hpp"
#include "restored.hpp"
#include "schedule.hpp"

namespace lmq {

/// Rank 0's other half: deals tasks to all ranks (itself included), takes their results, ends the run.
class Coordinator {
 public:
  Coordinator(Comm& comm, const RunContext& context, LayoutFormat& format, const RunOptions& options,
              const RunLock& lock, WorkDir& work_dir);

  /// A message to rank 0 (result, failed, interrupted, done).
  void on_message(const Message& message);
  /// Does what can be done now; true when something was.
  bool advance();
  /// Tells all ranks to end; the first status counts.
  void stop(const RunStatus& status);
  /// All ranks have said good-done.
  [[nodiscard]] bool ended() const noexcept { return stopping_ && done_ranks_ == comm_.size(); }
  /// Since it told the ranks to end, 0 before.
  [[nodiscard]] double seconds_stopping() const;
  [[nodiscard]] RunReport report();

  /// What the table of tasks does with results (TaskType::take). The digest of a unit's values is known.
  void take_source(const Finished& finished);
  void take_measured(const Finished& finished, std::span<const std::byte> histogram, int from);
  /// No body: the histogram was not what had been written.
  void take_solved(const Finished& finished);
  void take_curve(std::uint64_t scope, const Finished& finished);
  /// resumed: of an earlier run.
  void take_record(const Finished& finished, bool resumed);
  /// Only while the output is made.
  [[nodiscard]] Commit& commit() { return *commit_; }

 private:
  using Clock = std::chrono::steady_clock;
  /// checking: values that earlier runs have read are read again, for their files are others now.
  enum class Phase : std::uint8_t { checking, computing, copying, syncing, comparing };

  void look_at_parts();
  void remove_part(const std::string& part) const;
  void restore();
  void restore_curve(std::uint64_t scope);
  void restore_fit(std::uint64_t scope);
  void restore_histograms(std::uint64_t scope);
  void restore_record(std::uint64_t unit);
  [[nodiscard]] std::optional<Task> next_check();
  [[nodiscard]] std::optional<Task> next_of_schedule(int rank);
  void start_budget();
  void begin(const std::vector<Budget::Choice>& choices);
  [[nodiscard]] bool over_budget();
  void solved(const TaskKey& key, const Fit& fit);
  void take(int from, const Outcome& outcome);
  void take_histogram(const TaskKey& key, std::span<const std::byte> bytes, const char* source, int from);
  [[nodiscard]] bool deal();
  [[nodiscard]] std::optional<Task> next(int rank);
  void begin_commit();
  void end_commit();
  void make_lost_again();
  void check_time();
  [[nodiscard]] ProgressSnapshot snapshot() const;

  Comm& comm_;
  const RunContext& context_;
  LayoutFormat& format_;
  const RunOptions& options_;
  Schedule schedule_;
  Restored restored_;                         // what earlier runs left
  std::optional<std::uint64_t> next_check_;   // unit
  std::vector<std::string> parts_left_;       // of earlier runs, plain names
  std::vector<std::uint64_t> scope_sources_;  // [scopes] digest of the values of their units, 0: not known
  std::optional<Budget> budget_;
  std::optional<Plan> chosen_plan_;  // the plan with the options that the budget chose
  bool budget_started_ = false;
  std::vector<UnitRecord> units_;           // [units]
  std::vector<SpoolPlace> spooled_;         // [units] where the records lie
  std::vector<const Codebook*> codebooks_;  // [scopes], once all are solved
  OutputContents contents_;
  std::optional<Commit> commit_;
  const RunLock& lock_;  // of the output
  std::uint32_t run_;
  Dealer dealer_;
  std::vector<RankTimes> rank_times_;  // [ranks] as they said good-done
  std::vector<bool> synced_;           // [ranks] has been asked to
  std::vector<bool> made_again_;       // [units] whose record was found damaged once
  Phase phase_ = Phase::checking;
  bool stopping_ = false;
  int done_ranks_ = 0;
  Clock::time_point start_ = Clock::now(), stopped_;
  Progress progress_;
  std::uint64_t results_ = 0, units_resumed_ = 0;
  std::uint64_t weights_done_ = 0, bytes_done_ = 0;  // quantized in this run
  double squared_error_ = 0, energy_ = 0;            // of the records there are; for the progress line
  double done_before_ = 0;
  std::vector<TensorLine> tensors_;  // once the file is there
  std::uint64_t file_bytes_ = 0;
};

}  // namespace lmq
