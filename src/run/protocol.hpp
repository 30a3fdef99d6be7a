#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lmq/base/error.hpp"
#include "lmq/run/executor.hpp"
#include "lmq/run/rank_times.hpp"
#include "lmq/run/task.hpp"

namespace lmq {

/// The first byte of every message between ranks of a run.
enum class MessageType : std::uint8_t {
  task = 1,         ///< rank 0: do this
  stop = 2,         ///< rank 0: it is over; code 0 or the error all ranks end with
  result = 3,       ///< to rank 0: a finished task
  failed = 4,       ///< to rank 0: a task or the rank itself failed
  interrupted = 5,  ///< to rank 0: a signal came here
  done = 6,         ///< to rank 0: the last message of a rank
};

/// How a run ends, on every rank: code 0, or an error.
struct RunStatus {
  int code = 0;
  std::string text;
};

[[nodiscard]] std::vector<std::byte> task_message(const Task& task);
[[nodiscard]] std::vector<std::byte> result_message(const Outcome& outcome);
[[nodiscard]] std::vector<std::byte> status_message(MessageType type, const RunStatus& status);
[[nodiscard]] std::vector<std::byte> done_message(const RankTimes& times);

[[nodiscard]] MessageType message_type_of(std::span<const std::byte> message);
/// The rest of a message after its type. Errc::malformed when it is not what the type promises.
[[nodiscard]] Task task_of(std::span<const std::byte> message);
[[nodiscard]] Outcome outcome_of(std::span<const std::byte> message);
[[nodiscard]] RunStatus status_of(std::span<const std::byte> message);
[[nodiscard]] RankTimes times_of(std::span<const std::byte> message);

/// What an exception means for all ranks; to be called in a catch block. Errors of one machine (io, internal) name rank
/// and host when there are several ranks; those of the input are the same wherever they are found.
[[nodiscard]] RunStatus current_status(int rank, int ranks);

}  // namespace lmq
