#pragma once
#include <cstddef>
#include <functional>
#include <string>

#include "lmq/base/error.hpp"
#include "lmq/run/comm.hpp"

namespace lmq::app {

/// Rank and size as the launcher's environment tells them (Open MPI, PMIx, PMI, Slurm), before MPI is initialised; 0
/// and 1 without a launcher.
[[nodiscard]] int launch_rank() noexcept;
/// Ranks on this machine, 1 when unknown.
[[nodiscard]] std::size_t launch_local_ranks() noexcept;
/// Tasks of an srun that knows nothing of MPI, each of which takes itself for a run of its own; else 1. Told once for
/// all of them, by the first: 1 in the others.
[[nodiscard]] long launch_strangers() noexcept;

/// Calls `body` with the communicator of this run (self, or MPI when a launcher started us) and returns its exit code.
/// Errors end all ranks: an agreed one is said by rank 0, a lone one by the rank it happened to, with host and rank.
int with_comm(int& argc, char**& argv, const std::function<int(Comm&)>& body);

/// The exception in flight as exit code and line; used by main for what happens outside with_comm.
struct Failure {
  int code = 0;
  std::string line;
};
[[nodiscard]] Failure current_failure();

/// Sets the thread count from --threads (0: OMP_NUM_THREADS, SLURM_CPUS_PER_TASK, or this rank's share of the CPUs) and
/// warns on rank 0 when ranks * threads of this machine are more than its CPUs.
void choose_threads(std::size_t asked);

}  // namespace lmq::app
