#pragma once
#include <catch2/catch.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "lmq/run/comm.hpp"

// What every body of Comm keeps. Checks are thrown, not REQUIREd: Catch's assertions belong to one thread.
namespace lmq::test {

inline void expect(bool holds, const char* what) {
  if (!holds) throw std::runtime_error(what);
}

/// `length` bytes that depend on who sends to whom.
inline std::vector<std::byte> bytes_between(int from, int to, int number, std::size_t length) {
  std::vector<std::byte> bytes(length);
  std::uint32_t state = 0x9E3779B9u * static_cast<std::uint32_t>(1 + from + 100 * to + 10000 * number);
  for (std::byte& byte : bytes) {
    state = state * 1664525u + 1013904223u;
    byte = static_cast<std::byte>(state >> 24);
  }
  return bytes;
}

inline void messages_arrive_whole_and_in_order(Comm& comm) {
  const std::vector<std::size_t> lengths = {0, 1, 5, 4096, 100'000, 3'000'000, 7, 0};
  for (std::size_t k = 0; k < lengths.size(); ++k)
    for (int to = 0; to < comm.size(); ++to)
      comm.send(to, bytes_between(comm.rank(), to, static_cast<int>(k), lengths[k]));
  std::map<int, std::size_t> received;
  for (std::size_t left = lengths.size() * static_cast<std::size_t>(comm.size()); left > 0;) {
    const auto message = comm.try_receive();
    if (!message) {
      std::this_thread::yield();
      continue;
    }
    const std::size_t k = received[message->from]++;
    expect(k < lengths.size(), "more messages than were sent");
    expect(message->bytes == bytes_between(message->from, comm.rank(), static_cast<int>(k), lengths[k]),
           "a message came out of order or changed");
    --left;
  }
  comm.barrier();
  expect(!comm.try_receive(), "a message nobody sent");
}

inline void collectives_agree(Comm& comm) {
  for (int round = 0; round < 20; ++round) {
    const int root = round % comm.size();
    const std::size_t length = round % 4 == 0 ? 0 : static_cast<std::size_t>(round) * 1000;
    const auto mine = comm.rank() == root ? bytes_between(root, 0, round, length) : std::vector<std::byte>(3);
    expect(comm.broadcast(mine, root) == bytes_between(root, 0, round, length), "broadcast is not what root had");
    const auto all = comm.gather(bytes_between(comm.rank(), 1, round, length * static_cast<std::size_t>(comm.rank())));
    expect(all.size() == (comm.rank() == 0 ? static_cast<std::size_t>(comm.size()) : 0), "gather has another size");
    for (std::size_t from = 0; from < all.size(); ++from)
      expect(all[from] == bytes_between(static_cast<int>(from), 1, round, length * from), "gathered bytes changed");
  }
  // Messages sent before a collective are not lost in it.
  comm.send((comm.rank() + 1) % comm.size(), bytes_between(comm.rank(), 2, 0, 1000));
  (void)comm.gather(bytes_between(comm.rank(), 3, 0, 10));
  comm.barrier();
  const int before = (comm.rank() + comm.size() - 1) % comm.size();
  for (auto message = comm.try_receive();; message = comm.try_receive()) {
    if (!message) continue;
    expect(message->from == before && message->bytes == bytes_between(before, 2, 0, 1000), "a message got mixed up");
    break;
  }
  comm.barrier();
}

/// Every rank of `failing` throws its own error; all must report that of the lowest.
inline void failures_are_agreed(Comm& comm, const std::vector<int>& failing) {
  int lowest = -1;
  for (const int rank : failing)
    if (rank < comm.size() && (lowest < 0 || rank < lowest)) lowest = rank;
  bool thrown = false;
  try {
    run_agreed(comm, [&] {
      for (const int rank : failing)
        if (rank == comm.rank()) fail(Errc::malformed, "rank " + std::to_string(rank) + " found a fault");
    });
  } catch (const AgreedError& error) {
    thrown = true;
    expect(error.code == Errc::malformed, "another code");
    expect(error.what() == "rank " + std::to_string(lowest) + " found a fault", "not the lowest rank's error");
  }
  expect(thrown == (lowest >= 0), "some rank failed and not all know, or the other way round");
}

inline void all_comm_laws(Comm& comm) {
  messages_arrive_whole_and_in_order(comm);
  collectives_agree(comm);
  failures_are_agreed(comm, {});
  failures_are_agreed(comm, {0});
  failures_are_agreed(comm, {2, 1});
  failures_are_agreed(comm, {comm.size() - 1});
  messages_arrive_whole_and_in_order(comm);
}

}  // namespace lmq::test
