#include "lmq/run/simulate.hpp"

#include <algorithm>
#include <deque>
#include <optional>
#include <queue>
#include <utility>

#include "copy_queues.hpp"
#include "dealer.hpp"
#include "lmq/base/math.hpp"
#include "lmq/plan/costs.hpp"
#include "schedule.hpp"
#include "task_type.hpp"

namespace lmq {
namespace {

constexpr double kMessageBytes = 300, kBinBytes = 16;  // of a task or a result; of a bin of a histogram with it

enum class What : std::uint8_t { arrived, loaded, done, result };

struct Event {
  double time = 0;
  std::uint64_t number = 0;  // of two at the same time the older one first
  What what = What::arrived;
  int rank = 0;
  Task task = {};
};
struct Later {
  bool operator()(const Event& a, const Event& b) const noexcept {
    return a.time != b.time ? a.time > b.time : a.number > b.number;
  }
};

/// First come, first served at a rate that all share; nobody is faster than alone.
class Shared {
 public:
  explicit Shared(double rate) : rate_(rate) {}
  /// When `bytes` asked for at `now` have come, at most `own` a second.
  double end(double now, double bytes, double own) {
    free_ = std::max(free_, now) + bytes / rate_;
    busy_ += bytes / rate_;
    return std::max(free_, now + bytes / own);
  }
  [[nodiscard]] double busy() const noexcept { return busy_; }

 private:
  double rate_, free_ = 0, busy_ = 0;
};

/// What Worker is on a rank: a task's input is read while another is computed, with a slot between them.
struct RankState {
  std::deque<Task> queue;
  std::optional<Task> loading, slot, running;
  double idle_since = 0, loading_since = 0;
  RankTimes times;
};

class Simulation {
 public:
  Simulation(const Plan& plan, const std::vector<TensorInfo>& tensors, std::uint64_t output_bytes,
             const Machine& machine)
      : plan_(plan),
        tensors_(tensors),
        machine_(machine),
        schedule_(plan, kOpenScopesPerRank * machine.ranks),
        dealer_(static_cast<int>(machine.ranks)),
        ranks_(machine.ranks),
        storage_(machine.storage),
        link_(machine.link),
        copies_(machine.ranks),
        holder_(plan.units.size(), -1) {
    double kept = 0, quantized = 0;
    for (std::uint64_t unit = 0; unit < plan.units.size(); ++unit)
      (is_quantized(unit) ? quantized : kept) += is_quantized(unit) ? weights(unit) : source_bytes(unit);
    const auto threads = static_cast<double>(machine.threads), all = threads * static_cast<double>(machine.ranks);
    speed_ = machine.cores == 0 ? threads : threads * std::min(1.0, static_cast<double>(machine.cores) / all);
    if (quantized > 0) stored_weight_ = std::max(0.0, static_cast<double>(output_bytes) - kept) / quantized;
  }

  Simulated run() {
    root_free_ = 1e-9 * kCosts.start + machine_.start_tensor * static_cast<double>(tensors_.size());
    for (RankState& rank : ranks_) rank.idle_since = root_free_;
    const double begin = root_free_;
    pass([&](int rank) { return schedule_.next(rank); });
    if (chosen_) pass([&](int rank) { return schedule_.next(rank); });
    result_.computing = root_free_;
    writing_ = true;
    root_free_ += machine_.lay_out_tensor * static_cast<double>(tensors_.size());
    for (std::uint64_t unit = 0; unit < plan_.units.size(); ++unit)
      copies_.offer(unit, is_quantized(unit) ? static_cast<std::size_t>(holder_[unit]) : SIZE_MAX);
    pass([&](int rank) { return next_copy(rank); });
    root_free_ += machine_.sync;
    pass([&](int) { return next_compare(); });
    root_free_ += machine_.sync;
    return finish(begin);
  }

 private:
  /// Deals until nothing is left and everything is back.
  void pass(const Dealer::Next& next) {
    next_ = next;
    now_ = root_free_;
    deal();
    while (!events_.empty()) {
      const Event event = events_.top();
      events_.pop();
      now_ = event.time;
      take(event);
    }
    root_free_ = std::max(root_free_, now_);
  }

  Simulated finish(double begin) {
    result_.seconds = root_free_;
    result_.writing = result_.seconds - result_.computing;
    for (RankState& rank : ranks_) {
      rank.times.waiting_work =
          result_.seconds - begin - rank.times.computing - rank.times.writing - rank.times.waiting_input;
      result_.ranks.push_back(rank.times);
    }
    result_.coordinator_busy = root_busy_ / result_.seconds;
    result_.storage_busy = storage_.busy() / result_.seconds;
    return std::move(result_);
  }

  void post(double time, What what, int rank, Task task) {
    events_.push({time, number_++, what, rank, std::move(task)});
  }

  void take(const Event& event) {
    if (event.what == What::result) return take_result(event.rank, event.task.key);
    RankState& rank = ranks_[static_cast<std::size_t>(event.rank)];
    if (event.what == What::arrived) rank.queue.push_back(event.task);
    if (event.what == What::loaded) rank.slot = std::exchange(rank.loading, std::nullopt);
    if (event.what == What::done) {
      send_result(event.rank, *rank.running);
      rank.running.reset();
      rank.idle_since = now_;
    }
    go_on(event.rank, rank);
  }

  /// Starts what Worker's two threads can start now.
  void go_on(int number, RankState& rank) {
    if (rank.slot && !rank.running) {
      rank.running = std::exchange(rank.slot, std::nullopt);
      rank.times.waiting_input += now_ - std::max(rank.idle_since, std::min(now_, rank.loading_since));
      const double seconds = seconds_of(*rank.running);
      (writing_ ? rank.times.writing : rank.times.computing) += seconds;
      post(now_ + seconds, What::done, number, {});
    }
    if (rank.loading || rank.slot || rank.queue.empty()) return;
    rank.loading = std::move(rank.queue.front());
    rank.queue.pop_front();
    rank.loading_since = now_;
    post(loaded_at(number, rank.loading->key), What::loaded, number, {});
  }

  double loaded_at(int rank, const TaskKey& key) {
    const TaskType::Input input = type_of(key).input;
    if (input == TaskType::Input::body) return now_;
    const double bytes = input == TaskType::Input::stored ? stored_bytes(key.subject) : source_bytes(key.subject);
    int& holder = holder_[key.subject];
    if (std::exchange(holder, rank) == rank) return now_ + bytes / machine_.memory_io;
    return storage_.end(now_, bytes, machine_.rank_io);
  }

  double seconds_of(const Task& task) {
    const TaskKey& key = task.key;
    const TaskType& type = type_of(key);
    if (type.subject == TaskType::Subject::scope) return plan_.scopes[key.subject].seconds;
    if (!type.commits) return task.seconds / speed_;
    const double bytes = stored_bytes(key.subject), seconds = type.seconds_per_byte * bytes;
    return type.writes ? std::max(seconds, storage_.end(now_, bytes, machine_.rank_io) - now_) : seconds;
  }

  void send_result(int rank, const Task& task) {
    const double bytes = kMessageBytes + kBinBytes * bins_of(task.key);
    post(link_.end(now_, bytes, machine_.link) + machine_.latency, What::result, rank, task);
  }

  /// The main thread of rank 0 takes one result after the other.
  void take_result(int rank, const TaskKey& key) {
    ++result_.results;
    work(machine_.message + machine_.merge_bin * bins_of(key));
    dealer_.returned(rank, key);
    if (const auto play = type_of(key).play) play(schedule_, plan_, key, rank);
    if (!chosen_ && !writing_ && plan_.target_bytes > 0 && schedule_.all_curved()) choose();
    deal();
  }

  void choose() {
    chosen_ = true;
    for (std::uint64_t scope = 0; scope < plan_.scopes.size(); ++scope) {
      if (!plan_.scopes[scope].spec.budgeted) continue;
      work(machine_.choose_scope);
      schedule_.begin(scope, plan_.scopes[scope].spec.options);
    }
  }

  void work(double seconds) {
    root_free_ = std::max(root_free_, now_) + seconds;
    root_busy_ += seconds;
  }

  void deal() {
    dealer_.deal(next_, [this](int rank, const Task& task) {
      work(machine_.deal);
      const double bytes = kMessageBytes + kBinBytes * bins_of(task.key);
      post(link_.end(root_free_, bytes, machine_.link) + machine_.latency, What::arrived, rank,
           {task.key, {}, task.seconds, 0});
    });
  }

  /// Bins of the histogram that a task brings (a unit has half of those of many) or is sent.
  [[nodiscard]] double bins_of(const TaskKey& key) const {
    const TaskType& type = type_of(key);
    if (type.histogram == TaskType::Histogram::none) return 0;
    const bool found = type.histogram == TaskType::Histogram::found;
    const Scope& scope = plan_.scopes[type.subject == TaskType::Subject::unit ? scope_of(key.subject) : key.subject];
    constexpr double kSpreads = 300;
    if (scope.layers) return kSpreads;
    const TensorPlan& tensor = plan_.tensors[scope.tensors.front()];
    const std::uint64_t most = type.subject == TaskType::Subject::unit ? plan_.units[key.subject].count : scope.weights;
    const std::uint64_t bins =
        expected_bins(tensors_[tensor.tensor].value_type(), scope.spec, tensor.importance.present());
    return static_cast<double>(std::min(most, found ? bins / 2 : bins));
  }

  std::optional<Task> next_copy(int rank) {
    const auto unit = copies_.next(static_cast<std::size_t>(rank));
    return unit ? std::optional(stored_task(TaskKind::copy, *unit)) : std::nullopt;
  }

  std::optional<Task> next_compare() {
    if (compared_ == plan_.units.size()) return std::nullopt;
    return stored_task(TaskKind::compare, compared_++);
  }

  [[nodiscard]] Task stored_task(TaskKind kind, std::uint64_t unit) const {
    const TaskKey key{kind, unit, 0};
    return {key, {}, type_of(key).seconds_per_byte * stored_bytes(unit), 0};
  }

  [[nodiscard]] bool is_quantized(std::uint64_t unit) const {
    return plan_.tensors[plan_.units[unit].tensor].treatment == Treatment::quantize;
  }
  [[nodiscard]] std::uint64_t scope_of(std::uint64_t unit) const {
    return static_cast<std::uint64_t>(plan_.tensors[plan_.units[unit].tensor].scope);
  }
  [[nodiscard]] double weights(std::uint64_t unit) const { return static_cast<double>(plan_.units[unit].count); }
  [[nodiscard]] double source_bytes(std::uint64_t unit) const {
    return weights(unit) * static_cast<double>(bits(tensors_[plan_.tensors[plan_.units[unit].tensor].tensor].dtype)) /
           8;
  }
  [[nodiscard]] double stored_bytes(std::uint64_t unit) const {
    return is_quantized(unit) ? stored_weight_ * weights(unit) : source_bytes(unit);
  }

  const Plan& plan_;
  const std::vector<TensorInfo>& tensors_;
  const Machine& machine_;
  Schedule schedule_;
  Dealer dealer_;
  std::vector<RankState> ranks_;
  Shared storage_, link_;
  CopyQueues copies_;
  std::vector<int> holder_;   // [units] the rank that has the unit's bytes in memory; -1: none
  double stored_weight_ = 0;  // bytes
  double speed_ = 1;          // cores of a rank
  Dealer::Next next_;
  std::priority_queue<Event, std::vector<Event>, Later> events_;
  double now_ = 0, root_free_ = 0, root_busy_ = 0;
  std::uint64_t number_ = 0, compared_ = 0;
  bool writing_ = false, chosen_ = false;
  Simulated result_;
};

}  // namespace

Simulated simulate(const Plan& plan, const std::vector<TensorInfo>& tensors, std::uint64_t output_bytes,
                   const Machine& machine) {
  return Simulation(plan, tensors, output_bytes, machine).run();
}

}  // namespace lmq
