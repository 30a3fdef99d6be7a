#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "lmq/run/comm.hpp"

namespace lmq {
namespace {

/// Thrown where a rank waits for one that has already left; never the cause of anything.
struct PeerLeft : Error {
  explicit PeerLeft(const std::string& what) : Error(Errc::internal, what) {}
};

/// What the ranks of one process share. One mutex for all: this body is for tests, not for speed.
struct Shared {
  explicit Shared(int ranks) : inbox(static_cast<std::size_t>(ranks)), slots(static_cast<std::size_t>(ranks)) {}

  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::deque<Message>> inbox;     // [ranks]
  std::vector<std::vector<std::byte>> slots;  // [ranks] what each brought to the collective
  std::size_t arrived = 0;
  std::size_t generation = 0;
  bool broken = false;  // a rank has left by an exception that the others know nothing of

  /// Waits until all ranks are here; `last` is done once, by the last to come.
  template <class Last>
  void meet(std::unique_lock<std::mutex>& lock, Last last) {
    if (broken) throw PeerLeft("a rank left before the others met");
    const std::size_t mine = generation;
    if (++arrived == inbox.size()) {
      last();
      arrived = 0;
      ++generation;
      changed.notify_all();
      return;
    }
    changed.wait(lock, [&] { return generation != mine || broken; });
    if (generation == mine) throw PeerLeft("a rank left before the others met");
  }
};

class ThreadComm final : public Comm {
 public:
  ThreadComm(Shared& shared, int rank) : shared_(shared), rank_(rank) {}
  [[nodiscard]] int rank() const noexcept override { return rank_; }
  [[nodiscard]] int size() const noexcept override { return static_cast<int>(shared_.inbox.size()); }
  void send(int to, std::vector<std::byte> bytes) override {
    const std::lock_guard lock(shared_.mutex);
    shared_.inbox.at(static_cast<std::size_t>(to)).push_back({rank_, std::move(bytes)});
  }
  [[nodiscard]] std::optional<Message> try_receive() override {
    const std::lock_guard lock(shared_.mutex);
    std::deque<Message>& inbox = shared_.inbox[static_cast<std::size_t>(rank_)];
    if (inbox.empty()) {
      if (shared_.broken) throw PeerLeft("a rank left while another listened");
      return std::nullopt;
    }
    Message message = std::move(inbox.front());
    inbox.pop_front();
    return message;
  }
  [[nodiscard]] std::vector<std::byte> broadcast(std::vector<std::byte> bytes, int root) override {
    std::unique_lock lock(shared_.mutex);
    if (rank_ == root) shared_.slots[static_cast<std::size_t>(root)] = std::move(bytes);
    shared_.meet(lock, [] {});
    std::vector<std::byte> copy = shared_.slots[static_cast<std::size_t>(root)];
    shared_.meet(lock, [] {});  // nobody writes the slot again before all have read it
    return copy;
  }
  [[nodiscard]] std::vector<std::vector<std::byte>> gather(std::vector<std::byte> bytes) override {
    std::unique_lock lock(shared_.mutex);
    shared_.slots[static_cast<std::size_t>(rank_)] = std::move(bytes);
    shared_.meet(lock, [] {});
    std::vector<std::vector<std::byte>> all;
    if (rank_ == 0) all = shared_.slots;
    shared_.meet(lock, [] {});
    return all;
  }
  void barrier() override {
    std::unique_lock lock(shared_.mutex);
    shared_.meet(lock, [] {});
  }
  [[noreturn]] void abort(int exit_code) override {
    throw Error(static_cast<Errc>(exit_code), "rank " + std::to_string(rank_) + " ended all ranks");
  }

 private:
  Shared& shared_;
  int rank_;
};

bool is_cause(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const PeerLeft&) {
    return false;
  } catch (...) {
    return true;
  }
}

}  // namespace

void run_on_threads(int ranks, const std::function<void(Comm&)>& body) {
  Shared shared(ranks);
  std::vector<std::exception_ptr> errors(static_cast<std::size_t>(ranks));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank)
    threads.emplace_back([&, rank] {
      try {
        ThreadComm comm(shared, rank);
        body(comm);
      } catch (const AgreedError&) {
        errors[static_cast<std::size_t>(rank)] = std::current_exception();  // the others know, and leave by themselves
      } catch (...) {
        errors[static_cast<std::size_t>(rank)] = std::current_exception();
        const std::lock_guard lock(shared.mutex);
        shared.broken = true;
        shared.changed.notify_all();
      }
    });
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& error : errors)
    if (error && is_cause(error)) std::rethrow_exception(error);
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
}

}  // namespace lmq
