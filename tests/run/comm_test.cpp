#include <atomic>

#include "comm_laws.hpp"

using namespace lmq;
using namespace lmq::test;

TEST_CASE("comm: one rank alone talks to itself", "[run][comm]") {
  const auto comm = make_self_comm();
  REQUIRE(comm->rank() == 0);
  REQUIRE(comm->size() == 1);
  REQUIRE_NOTHROW(all_comm_laws(*comm));
}

TEST_CASE("comm: ranks on threads keep the laws", "[run][comm]") {
  const int ranks = GENERATE(1, 2, 3, 7);
  CAPTURE(ranks);
  REQUIRE_NOTHROW(run_on_threads(ranks, [](Comm& comm) { all_comm_laws(comm); }));
}

TEST_CASE("comm: when a rank leaves by an exception nobody waits for it, and its error is the one reported",
          "[run][comm]") {
  const int ranks = GENERATE(2, 3, 7), leaving = GENERATE(0, 1);
  const int where = GENERATE(0, 1, 2, 3);
  CAPTURE(ranks, leaving, where);
  const auto body = [&](Comm& comm) {
    if (comm.rank() == leaving) fail(Errc::io, "the disk is gone");
    if (where == 0) comm.barrier();
    if (where == 1) (void)comm.gather({});
    if (where == 2) (void)comm.broadcast({}, leaving);
    if (where == 3)
      while (!comm.try_receive()) std::this_thread::yield();
  };
  try {
    run_on_threads(ranks, body);
    FAIL("no error came out");
  } catch (const Error& error) {
    REQUIRE(error.code == Errc::io);
    REQUIRE(std::string(error.what()) == "the disk is gone");
  }
}

TEST_CASE("comm: abort on threads ends all ranks with its code", "[run][comm]") {
  try {
    run_on_threads(3, [](Comm& comm) {
      if (comm.rank() == 2) comm.abort(74);
      comm.barrier();
    });
    FAIL("nobody heard of it");
  } catch (const Error& error) {
    REQUIRE(static_cast<int>(error.code) == 74);
  }
}

TEST_CASE("comm: run_agreed gives foreign exceptions a code", "[run][comm]") {
  const auto comm = make_self_comm();
  try {
    run_agreed(*comm, [] { throw std::runtime_error("surprise"); });
    FAIL("swallowed");
  } catch (const AgreedError& error) {
    REQUIRE(error.code == Errc::internal);
    REQUIRE(std::string(error.what()) == "surprise");
  }
}
