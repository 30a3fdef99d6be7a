#pragma once
#include <memory>
#include <string>

#include "lmq/run/comm.hpp"

namespace lmq {

/// True when this process was started by mpirun or srun (Open MPI, PMIx, PMI, Hydra variables are set).
[[nodiscard]] bool started_by_mpi() noexcept;
/// Initialises MPI (MPI_THREAD_FUNNELED) and finalises it on destruction. At most one in a process.
[[nodiscard]] std::unique_ptr<Comm> make_mpi_comm(int& argc, char**& argv);
/// Library version for `lmq --version`; works without initialising.
[[nodiscard]] std::string mpi_version();

}  // namespace lmq
