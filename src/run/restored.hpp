#pragma once
#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "lmq/run/executor.hpp"
#include "lmq/run/task.hpp"
#include "lmq/run/work_dir.hpp"

namespace lmq {

/// What earlier runs left in the journals, whatever their plans: found by what a task is (task_identity), used where
/// the values it was made from are those of today's input. Where the input's files are untouched that is so; else the
/// values are read again and their digests compared. Rank 0.
class Restored {
 public:
  /// Reads all journals once. Holds 64 bytes for each result; the results themselves stay in the journals. Cost: 2 us a
  /// unit when there are some.
  Restored(const RunContext& context, const WorkDir& work_dir);

  /// The next unit whose values must be read before any find(); nothing when all are dealt.
  [[nodiscard]] std::optional<std::uint64_t> next_to_check();
  /// The digest of a unit's values is known: by a check, or by a task of this run.
  void read(std::uint64_t unit, std::uint64_t source);

  /// The result of that identity, made from the values that these units have today. Errc::io.
  [[nodiscard]] std::optional<Finished> find(const std::string& identity, std::span<const std::uint64_t> units);
  /// Finished::source of what is made from several units; 0: a unit's values have not been read.
  [[nodiscard]] std::uint64_t source_of(std::span<const std::uint64_t> units) const;
  [[nodiscard]] bool empty() const noexcept { return results_.empty(); }
  /// Units that a part file holds already, by what their copying found.
  [[nodiscard]] std::map<std::uint64_t, CopyResult> copied_into(const std::string& part) const;

 private:
  using Identity = std::array<std::uint64_t, 2>;
  struct Result {
    Identity identity;  // of the text
    JournalPlace place;
    std::uint64_t source = 0;  // Finished::source
    bool same_input = true;
  };
  struct Copied {
    Identity part;
    std::uint64_t unit = 0;
    CopyResult result;
  };
  [[nodiscard]] static Identity identity_of(const std::string& text);
  void look_at_sources(const RunContext& context, const std::map<Identity, std::uint64_t>& read_today,
                       const std::set<Identity>& read_before);

  SpoolFiles files_;
  std::vector<Result> results_;  // ascending by identity, else as they were read
  std::vector<Copied> copies_;
  std::vector<std::uint64_t> source_;  // [units] digest of the values, 0: not known
  std::deque<std::uint64_t> to_check_;
};

}  // namespace lmq
