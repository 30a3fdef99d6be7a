#include "lmq/run/comm.hpp"

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <new>
#include <utility>

#include "lmq/base/bytes.hpp"

namespace lmq {
namespace {

/// One rank: what it sends, it receives.
class SelfComm final : public Comm {
 public:
  [[nodiscard]] int rank() const noexcept override { return 0; }
  [[nodiscard]] int size() const noexcept override { return 1; }
  void send(int, std::vector<std::byte> bytes) override { queue_.push_back({0, std::move(bytes)}); }
  [[nodiscard]] std::optional<Message> try_receive() override {
    if (queue_.empty()) return std::nullopt;
    Message message = std::move(queue_.front());
    queue_.pop_front();
    return message;
  }
  [[nodiscard]] std::vector<std::byte> broadcast(std::vector<std::byte> bytes, int) override { return bytes; }
  [[nodiscard]] std::vector<std::vector<std::byte>> gather(std::vector<std::byte> bytes) override {
    std::vector<std::vector<std::byte>> all;
    all.push_back(std::move(bytes));
    return all;
  }
  void barrier() override {}
  [[noreturn]] void abort(int exit_code) override {
    std::fflush(nullptr);
    std::_Exit(exit_code);
  }

 private:
  std::deque<Message> queue_;
};

/// The status of one rank: empty when its work was done, else the code and the text of its error.
std::vector<std::byte> status_of(const std::function<void()>& work) {
  const auto failed = [](Errc code, std::string_view text) {
    ByteWriter out;
    out.le(static_cast<std::int32_t>(code));
    out.text(text);
    return out.take();
  };
  try {
    work();
    return {};
  } catch (const Error& error) {
    return failed(error.code, error.what());
  } catch (const std::bad_alloc&) {
    return failed(Errc::internal, "out of memory");
  } catch (const std::exception& error) {
    return failed(Errc::internal, error.what());
  }
}

}  // namespace

std::unique_ptr<Comm> make_self_comm() { return std::make_unique<SelfComm>(); }

void run_agreed(Comm& comm, const std::function<void()>& work) {
  std::vector<std::vector<std::byte>> statuses = comm.gather(status_of(work));
  std::vector<std::byte> first;
  for (std::vector<std::byte>& status : statuses)
    if (first.empty()) first = std::move(status);
  first = comm.broadcast(std::move(first), 0);
  if (first.empty()) return;
  ByteReader in(first, "the error of another rank");
  const Errc code{in.le<std::int32_t>("code")};
  throw AgreedError(code, in.text("text"));
}

}  // namespace lmq
