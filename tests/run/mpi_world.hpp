#pragma once
#include "lmq/run/mpi_comm.hpp"

namespace lmq::test {
/// The communicator of the program, made by main.
extern Comm* world;
}  // namespace lmq::test
