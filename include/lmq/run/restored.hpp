#pragma once
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lmq/run/executor.hpp"
#include "lmq/run/task.hpp"

namespace lmq {

/// What earlier runs left in the journals, whatever their plans: found by what a task is (task_identity), used where
/// the values it was made from are those of today's input. Where the input's files are untouched that is so; else the
/// values are read again and their digests compared. Rank 0.
class Restored {
 public:
  /// results: WorkDir::results(). Cost: 2 us a unit when they are not empty.
  Restored(const RunContext& context, std::vector<Finished> results);

  /// The next unit whose values must be read before any find(); nothing when all are dealt.
  [[nodiscard]] std::optional<std::uint64_t> next_to_check();
  /// The digest of a unit's values is known: by a check, or by a task of this run.
  void read(std::uint64_t unit, std::uint64_t source);

  /// The result of that identity, made from the values that these units have today; nullptr: none. Valid until the next
  /// call of a member that is not const.
  [[nodiscard]] const Finished* find(const std::string& identity, std::span<const std::uint64_t> units) const;
  /// Finished::source of what is made from several units; 0: a unit's values have not been read.
  [[nodiscard]] std::uint64_t source_of(std::span<const std::uint64_t> units) const;
  [[nodiscard]] bool empty() const noexcept { return by_identity_.empty(); }
  /// Units that a part file holds already, by what their copying found.
  [[nodiscard]] std::map<std::uint64_t, CopyResult> copied_into(const std::string& part) const;

 private:
  std::multimap<std::string, Finished> by_identity_;
  std::vector<Finished> copies_;
  std::vector<std::uint64_t> source_;  // [units] digest of the values, 0: not known
  std::deque<std::uint64_t> to_check_;
};

}  // namespace lmq
