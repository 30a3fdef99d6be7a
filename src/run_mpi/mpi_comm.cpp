#include "lmq/run/mpi_comm.hpp"

#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <exception>
#include <list>
#include <thread>
#include <utility>

namespace lmq {
namespace {

// Counts of MPI 3 are int: what is longer goes in pieces.
constexpr std::uint64_t kMaxPieceBytes = std::uint64_t{1} << 30;
constexpr int kTagWhole = 1;  // one message of at most one piece
constexpr int kTagLong = 2;   // u64: length of a message whose pieces follow with kTagPiece
constexpr int kTagPiece = 3;
constexpr auto kPause = std::chrono::microseconds(100);
constexpr int kEagerLooks = 50;
// After an exception nobody may wait for long for ranks that stand elsewhere.
constexpr auto kPatience = std::chrono::seconds(5);

/// Bytes on their way; they stay here until MPI has let go of them.
struct Outgoing {
  std::vector<std::byte> bytes;
  std::uint64_t length = 0;
  std::vector<MPI_Request> requests;
};

class MpiComm final : public Comm {
 public:
  MpiComm(int& argc, char**& argv, std::uint64_t piece_bytes) : piece_bytes_(std::min(piece_bytes, kMaxPieceBytes)) {
    int provided = 0;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
    if (provided < MPI_THREAD_FUNNELED) fail(Errc::unsupported, "MPI library: no MPI_THREAD_FUNNELED, which is needed");
    MPI_Comm_dup(MPI_COMM_WORLD, &world_);
    MPI_Comm_dup(MPI_COMM_WORLD, &collective_);
    MPI_Comm_rank(world_, &rank_);
    MPI_Comm_size(world_, &size_);
  }
  MpiComm(const MpiComm&) = delete;
  MpiComm& operator=(const MpiComm&) = delete;
  ~MpiComm() override {
    if (leave()) {
      MPI_Comm_free(&collective_);
      MPI_Comm_free(&world_);
      MPI_Finalize();
    } else {
      abort(static_cast<int>(Errc::internal));
    }
  }

  [[nodiscard]] int rank() const noexcept override { return rank_; }
  [[nodiscard]] int size() const noexcept override { return size_; }

  void send(int to, std::vector<std::byte> bytes) override {
    if (to == rank_) {
      to_self_.push_back(std::move(bytes));
      return;
    }
    Outgoing& out = outgoing_.emplace_back();
    out.bytes = std::move(bytes);
    out.length = out.bytes.size();
    const bool whole = out.length <= piece_bytes_;
    if (!whole) MPI_Isend(&out.length, sizeof out.length, MPI_BYTE, to, kTagLong, world_, &out.requests.emplace_back());
    for_pieces(out.bytes, [&](std::byte* piece, int length) {
      MPI_Isend(piece, length, MPI_BYTE, to, whole ? kTagWhole : kTagPiece, world_, &out.requests.emplace_back());
    });
  }

  [[nodiscard]] std::optional<Message> try_receive() override {
    drive_sends();
    if (!to_self_.empty()) {
      Message message{rank_, std::move(to_self_.front())};
      to_self_.pop_front();
      return message;
    }
    int there = 0;
    MPI_Status status;
    MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, world_, &there, &status);
    if (!there) return std::nullopt;
    return Message{status.MPI_SOURCE, receive(status)};
  }

  [[nodiscard]] std::vector<std::byte> broadcast(std::vector<std::byte> bytes, int root) override {
    std::uint64_t length = bytes.size();
    wait([&](MPI_Request* request) { MPI_Ibcast(&length, sizeof length, MPI_BYTE, root, collective_, request); });
    bytes.resize(length);
    if (length == 0) return bytes;
    for_pieces(bytes, [&](std::byte* piece, int count) {
      wait([&](MPI_Request* request) { MPI_Ibcast(piece, count, MPI_BYTE, root, collective_, request); });
    });
    return bytes;
  }

  [[nodiscard]] std::vector<std::vector<std::byte>> gather(std::vector<std::byte> bytes) override {
    std::vector<std::vector<std::byte>> all;
    std::uint64_t length = bytes.size();
    std::vector<std::uint64_t> lengths(rank_ == 0 ? static_cast<std::size_t>(size_) : 0);
    wait([&](MPI_Request* request) {
      MPI_Igather(&length, sizeof length, MPI_BYTE, lengths.data(), sizeof length, MPI_BYTE, 0, collective_, request);
    });
    if (rank_ != 0) {
      if (length > 0)
        for_pieces(bytes, [&](std::byte* piece, int count) {
          wait([&](MPI_Request* request) { MPI_Isend(piece, count, MPI_BYTE, 0, kTagPiece, collective_, request); });
        });
      return all;
    }
    all.push_back(std::move(bytes));
    for (int from = 1; from < size_; ++from) {
      std::vector<std::byte>& theirs = all.emplace_back(lengths[static_cast<std::size_t>(from)]);
      if (!theirs.empty())
        for_pieces(theirs, [&](std::byte* piece, int count) {
          wait([&](MPI_Request* request) { MPI_Irecv(piece, count, MPI_BYTE, from, kTagPiece, collective_, request); });
        });
    }
    return all;
  }

  void barrier() override {
    (void)meet(std::chrono::steady_clock::time_point::max(), [&] { drive_sends(); });
  }

  [[noreturn]] void abort(int exit_code) override {
    std::fflush(nullptr);
    MPI_Abort(MPI_COMM_WORLD, exit_code);
    std::_Exit(exit_code);
  }

 private:
  /// At least once, so that empty messages arrive too.
  template <class Body>
  void for_pieces(std::vector<std::byte>& bytes, Body body) const {
    std::uint64_t at = 0;
    do {
      const std::uint64_t length = std::min<std::uint64_t>(piece_bytes_, bytes.size() - at);
      body(bytes.data() + at, static_cast<int>(length));
      at += length;
    } while (at < bytes.size());
  }

  [[nodiscard]] std::vector<std::byte> receive(const MPI_Status& status) {
    std::uint64_t length = 0;
    if (status.MPI_TAG == kTagWhole) {
      int count = 0;
      MPI_Get_count(&status, MPI_BYTE, &count);
      length = static_cast<std::uint64_t>(count);
    } else {
      MPI_Recv(&length, sizeof length, MPI_BYTE, status.MPI_SOURCE, kTagLong, world_, MPI_STATUS_IGNORE);
    }
    std::vector<std::byte> bytes(length);
    const int tag = status.MPI_TAG == kTagWhole ? kTagWhole : kTagPiece;
    for_pieces(bytes, [&](std::byte* piece, int count) {
      MPI_Recv(piece, count, MPI_BYTE, status.MPI_SOURCE, tag, world_, MPI_STATUS_IGNORE);
    });
    return bytes;
  }

  void drive_sends() {
    for (auto out = outgoing_.begin(); out != outgoing_.end();) {
      int left = 0;
      MPI_Testall(static_cast<int>(out->requests.size()), out->requests.data(), &left, MPI_STATUSES_IGNORE);
      out = left ? outgoing_.erase(out) : std::next(out);
    }
  }

  /// Until what `start` starts is done. Ranks may be apart by minutes (one reads, the others wait for what it found),
  /// and a rank that waits must not take the processor from one that works: after a first try it sleeps between looks.
  template <class Start>
  void wait(Start start) {
    MPI_Request request;
    start(&request);
    for (int done = 0, looks = 0;; ++looks) {
      MPI_Test(&request, &done, MPI_STATUS_IGNORE);
      if (done) return;
      drive_sends();
      if (looks > kEagerLooks) std::this_thread::sleep_for(kPause);
    }
  }

  /// A barrier that sleeps; false when `deadline` comes first. `idle` is done while waiting.
  template <class Idle>
  [[nodiscard]] bool meet(std::chrono::steady_clock::time_point deadline, Idle idle) {
    MPI_Request request;
    MPI_Ibarrier(world_, &request);
    for (int here = 0;;) {
      idle();
      MPI_Test(&request, &here, MPI_STATUS_IGNORE);
      if (here) return true;
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::sleep_for(kPause);
    }
  }

  /// Everything has left and everyone is ready to go. Messages that nobody asked for are dropped; each rank goes on
  /// receiving until all have nothing more to send.
  [[nodiscard]] bool leave() {
    const auto deadline = std::uncaught_exceptions() > 0 ? std::chrono::steady_clock::now() + kPatience
                                                         : std::chrono::steady_clock::time_point::max();
    const auto drop_all = [&] {
      while (try_receive()) {
      }
    };
    for (drop_all(); !outgoing_.empty(); drop_all()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::sleep_for(kPause);
    }
    return meet(deadline, drop_all);
  }

  MPI_Comm world_ = MPI_COMM_NULL;       // messages and barriers
  MPI_Comm collective_ = MPI_COMM_NULL;  // pieces of collectives, so that no probe for messages sees them
  std::uint64_t piece_bytes_;
  int rank_ = 0, size_ = 1;
  std::list<Outgoing> outgoing_;  // a list: requests and lengths keep their addresses
  std::deque<std::vector<std::byte>> to_self_;
};

}  // namespace

bool started_by_mpi() noexcept {
  // Open MPI's mpirun; PMIx (srun --mpi=pmix, prterun); PMI-1 and PMI-2 (Hydra, Intel MPI, Cray, srun --mpi=pmi2).
  constexpr const char* kSigns[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK",  "PMI_RANK", "PMI_SIZE",
                                    "MPI_LOCALNRANKS",      "PALS_RANKID"};
  return std::any_of(std::begin(kSigns), std::end(kSigns),
                     [](const char* sign) { return std::getenv(sign) != nullptr; });
}

std::unique_ptr<Comm> make_mpi_comm(int& argc, char**& argv, std::uint64_t piece_bytes) {
  return std::make_unique<MpiComm>(argc, argv, piece_bytes);
}

std::string mpi_version() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  int length = 0;
  MPI_Get_library_version(text, &length);
  std::string version(text, static_cast<std::size_t>(length));
  // Some libraries answer with several lines, or end with a NUL that they count.
  version.resize(std::min(version.find_first_of(std::string("\n\0", 2)), version.size()));
  return version;
}

}  // namespace lmq
