#include <fmt/format.h>

#include "commands.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/io_hdf5/hdf5_format.hpp"
#include "lmq/kernels/isa.hpp"
#include "lmq/run/mpi_comm.hpp"
#include "terminal.hpp"
#include "version.hpp"

namespace lmq::app {

int show_version() {
  print(
      fmt::format("lmq {}\n"
                  "commit    {}\n"
                  "compiler  {}\n"
                  "flags     {}\n"
                  "HDF5      {}\n"
                  "MPI       {}\n"
                  "vectors   {}\n"
                  "threads   {}\n",
                  kVersion, kCommit, kCompiler, kFlags, hdf5_version(), mpi_version(), isa_name(), thread_count()));
  return 0;
}

}  // namespace lmq::app
