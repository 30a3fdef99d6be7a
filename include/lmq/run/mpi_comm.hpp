#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "lmq/run/comm.hpp"

namespace lmq {

/// True when this process was started by mpirun or srun (Open MPI, PMIx, PMI, Hydra variables are set).
[[nodiscard]] bool started_by_mpi() noexcept;
/// Initialises MPI (MPI_THREAD_FUNNELED) and finalises it on destruction. At most one in a process. Errors of the
/// library are fatal. When it is destroyed because of an exception and the other ranks do not come within 5 seconds, it
/// ends them. Collectives sleep while they wait. Messages longer than `piece_bytes` (at most 2^30) go in pieces.
[[nodiscard]] std::unique_ptr<Comm> make_mpi_comm(int& argc, char**& argv, std::uint64_t piece_bytes = 1u << 30);
/// Library version for `lmq --version`; works without initialising.
[[nodiscard]] std::string mpi_version();

}  // namespace lmq
