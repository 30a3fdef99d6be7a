#pragma once
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lmq/base/error.hpp"

namespace lmq {

struct Message {
  int from = 0;
  std::vector<std::byte> bytes;
};

/// An error that every rank of the group throws at the same place: it is to be told once (by rank 0), and every rank
/// may leave by itself with its code. Any other error of one rank must end the others with Comm::abort.
struct AgreedError : Error {
  using Error::Error;
};

/// The few operations we need of a group of processes. Bodies: self (one rank), threads (tests), MPI (lmq_run_mpi).
/// Only the main thread of a rank calls these. Messages between two ranks arrive in the order sent; any size; a rank
/// may send to itself.
class Comm {
 public:
  virtual ~Comm() = default;
  [[nodiscard]] virtual int rank() const noexcept = 0;
  [[nodiscard]] virtual int size() const noexcept = 0;
  /// Hands the bytes over; returns at once (the body keeps them until they have left).
  virtual void send(int to, std::vector<std::byte> bytes) = 0;
  /// The next message from anyone, or nothing when none has arrived. Also drives sends.
  [[nodiscard]] virtual std::optional<Message> try_receive() = 0;
  /// Root's bytes on every rank. Collective.
  [[nodiscard]] virtual std::vector<std::byte> broadcast(std::vector<std::byte> bytes, int root) = 0;
  /// Every rank's bytes on rank 0 (empty elsewhere). Collective.
  [[nodiscard]] virtual std::vector<std::vector<std::byte>> gather(std::vector<std::byte> bytes) = 0;
  virtual void barrier() = 0;
  /// Ends all ranks at once with this exit code; the caller has already said why.
  [[noreturn]] virtual void abort(int exit_code) = 0;
};

[[nodiscard]] std::unique_ptr<Comm> make_self_comm();
/// Runs `body(comm)` on `ranks` threads of this process; the exception of the lowest rank is thrown after all have
/// ended. A rank that leaves by an exception other than AgreedError makes the calls of the others throw (their errors
/// are not the ones reported).
void run_on_threads(int ranks, const std::function<void(Comm&)>& body);

/// Does `work` on every rank; when it fails anywhere, every rank throws the error of the lowest failing rank as an
/// AgreedError (so nobody waits in the next collective for a rank that has left). Collective.
void run_agreed(Comm& comm, const std::function<void()>& work);

}  // namespace lmq
