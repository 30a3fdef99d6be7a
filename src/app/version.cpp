#include <fmt/format.h>

#include "commands.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/io_hdf5/hdf5_format.hpp"
#include "lmq/kernels/isa.hpp"
#include "lmq/run/mpi_comm.hpp"
#include "table.hpp"
#include "terminal.hpp"
#include "version.hpp"

namespace lmq::app {
namespace {

/// A long text, its further lines under the first.
std::string in_column(std::string_view text) {
  constexpr std::size_t kColumn = 10;
  std::string lines = wrap(text, output_width(), kColumn);
  lines.pop_back();
  return lines.substr(kColumn);
}

}  // namespace

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
                  kVersion, kCommit, kCompiler, in_column(kFlags), hdf5_version(), in_column(mpi_version()), isa_name(),
                  thread_count()));
  return 0;
}

}  // namespace lmq::app
