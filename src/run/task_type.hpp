#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "lmq/run/executor.hpp"
#include "lmq/run/task.hpp"

namespace lmq {

class Coordinator;
class Schedule;

/// A row of the table of tasks: all that ranks, rank 0, journals and the simulation ask of a kind. Nobody else compares
/// kinds. A new kind is a line of tasks.inc and a file src/run/tasks/<name>.cpp.
struct TaskType {
  enum class Subject : std::uint8_t { unit, scope, rank };
  /// weights: the unit's, from the checkpoint; stored: the unit's bytes in a spool, in the output, or kept ones.
  enum class Input : std::uint8_t { body, weights, stored };
  /// What a later run makes of it in a journal. values: knows what values were read; copied: the output has the bytes;
  /// result: finds it again by its identity.
  enum class Restored : std::uint8_t { never, values, copied, result };
  /// A histogram comes with the result, or is sent with the task.
  enum class Histogram : std::uint8_t { none, found, sent };

  TaskKind kind{};
  std::string_view name;  ///< part of identities: never renamed
  Subject subject = Subject::unit;
  Input input = Input::body;
  Restored restored = Restored::never;
  Histogram histogram = Histogram::none;
  bool commits = false;         ///< makes the output of what was computed
  bool writes = false;          ///< as many bytes go to the output as were read
  double seconds_per_byte = 0;  ///< of stored bytes, on one core, beside what storage takes
  /// Reads what the task needs, on the loading thread; nothing: the body is all.
  void (*load)(TaskTools&, LoadedTask&, TaskBuffers&) = nullptr;
  /// Does it, on the running thread. Errors of Executor::run.
  Outcome (*run)(TaskTools&, const LoadedTask&) = nullptr;
  /// What task_identity says; nothing: not found by it.
  std::string (*identity)(const RunContext&, const Task&) = nullptr;
  /// What rank 0 makes of the result, which came from rank `from`; nothing: that it is done.
  void (*take)(Coordinator&, int from, const Outcome&) = nullptr;
  /// What a result of no content, from a rank, does to a schedule that is only played (simulate); nothing: nothing.
  void (*play)(Schedule&, const Plan&, const TaskKey&, int rank) = nullptr;
};

[[nodiscard]] std::span<const TaskType* const> task_types() noexcept;
/// nullptr: no such kind.
[[nodiscard]] const TaskType* find_task_type(TaskKind kind) noexcept;
/// Errc::internal for no such kind.
[[nodiscard]] const TaskType& type_of(const TaskKey& key);

}  // namespace lmq
