#define CATCH_CONFIG_RUNNER
#include <mpi.h>

#include <catch2/catch.hpp>
#include <cstdio>

#include "mpi_world.hpp"

namespace lmq::test {
Comm* world = nullptr;
}

// Rank 0 prints; the worst result of any rank is the result of all.
int main(int argc, char** argv) {
  auto comm = lmq::make_mpi_comm(argc, argv, 1 << 20);  // so that long messages are tried too
  lmq::test::world = comm.get();
  if (comm->rank() != 0 && std::freopen("/dev/null", "w", stdout) == nullptr) return 70;
  int result = Catch::Session().run(argc, argv);
  int worst = 0;
  MPI_Allreduce(&result, &worst, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  if (result != 0) std::fprintf(stderr, "rank %d: %d\n", comm->rank(), result);
  return worst;
}
