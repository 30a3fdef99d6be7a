#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "lmq/base/tensor.hpp"
#include "lmq/plan/plan.hpp"
#include "lmq/run/rank_times.hpp"

namespace lmq {

/// The machine a run is simulated on. Seconds, and bytes a second. What belongs to lmq was measured (docs/scaling.md).
struct Machine {
  std::size_t ranks = 1, threads = 1;  ///< threads of each rank
  std::size_t cores = 0;               ///< that all ranks share; 0: as many as threads in all
  double storage = 100e9;              ///< all ranks together, reading or writing
  double rank_io = 5e9;                ///< one rank
  double memory_io = 6e9;              ///< one rank, of what it has read before
  double latency = 5e-6;               ///< of a message
  double link = 5e9;                   ///< of the messages of rank 0, both ways together
  double message = 20e-6;              ///< rank 0's main thread, per result
  double deal = 15e-6;                 ///< the same, per task
  double merge_bin = 25e-9;            ///< the same, per bin of a histogram that arrives
  double sync = 5e-3;                  ///< a rank makes its part of the file durable
  double start_tensor = 5e-6;          ///< per tensor: catalogue and plan, before the first task
  double choose_scope = 50e-6;         ///< per scope with a budget: its bits are chosen
  double lay_out_tensor = 30e-6;       ///< per tensor: the file is laid out
};

struct Simulated {
  double seconds = 0;            ///< of the whole run
  double computing = 0;          ///< until every record is there, start included
  double writing = 0;            ///< from then on: layout, copies, comparison
  std::vector<RankTimes> ranks;  ///< [ranks] from the first task on
  double coordinator_busy = 0;   ///< part of the run that rank 0's main thread works
  double storage_busy = 0;       ///< part of the run that storage is the limit
  std::uint64_t results = 0;     ///< messages to rank 0
};

/// A run of the plan, event by event, with the Schedule, the Dealer and the CopyQueues of real runs; tasks take the
/// plan's seconds, reads and messages what the machine says.
/// tensors       the catalogue's
/// output_bytes  of the file, as estimated
/// Second looks at wide sources take their time with the first. Cost: about 2 microseconds per event, four events per
/// task.
[[nodiscard]] Simulated simulate(const Plan& plan, const std::vector<TensorInfo>& tensors, std::uint64_t output_bytes,
                                 const Machine& machine);

}  // namespace lmq
