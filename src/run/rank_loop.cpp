#include "rank_loop.hpp"

#include <algorithm>
#include <utility>

#include "lmq/run/signals.hpp"

namespace lmq {
namespace {

using std::chrono::microseconds;

// Between looks at the messages: short after something happened, longer the longer nothing does. With one rank only the
// worker brings news, and it wakes us; signals and progress lines can wait so long.
constexpr microseconds kShortPause{100}, kLongPause{1000}, kPauseAlone{20'000};
// So long a rank waits for the others after the end was called: a unit in hand, a flush.
constexpr double kPatienceSeconds = 60;
constexpr auto kPatienceForRankZero = std::chrono::seconds(10);

constexpr const char* kInterrupted = "interrupted by a signal: run the same command again to continue";

}  // namespace

RankLoop::RankLoop(Comm& comm, const RunContext& context, JournalHeader header, Coordinator* coordinator)
    : comm_(comm), coordinator_(coordinator), spool_(context.work_dir, std::move(header)), worker_(context, spool_) {}

void RankLoop::run() {
  microseconds pause = kShortPause;
  for (;;) {
    bool busy = false;
    while (const std::optional<Message> message = comm_.try_receive()) {
      busy = true;
      try {
        handle(*message);
      } catch (...) {
        fail_all(current_status(comm_.rank(), comm_.size()));
      }
    }
    try {
      busy = step() || busy;
    } catch (...) {
      fail_all(current_status(comm_.rank(), comm_.size()));
      busy = true;
    }
    if (leave()) break;
    pause = busy ? kShortPause : std::min(kLongPause, pause + pause / 4);
    if (!busy) worker_.wait(comm_.size() == 1 ? kPauseAlone : pause);
  }
  if (status_->code != 0) throw AgreedError(Errc{status_->code}, status_->text);
}

bool RankLoop::step() {
  bool busy = false;
  if (!status_ && !told_) {
    while (const std::optional<Outcome> outcome = worker_.take()) {
      comm_.send(0, result_message(*outcome));
      busy = true;
    }
    look_at_signals();
  }
  if (coordinator_ != nullptr) busy = coordinator_->advance() || busy;
  return busy;
}

void RankLoop::handle(const Message& message) {
  const MessageType type = message_type_of(message.bytes);
  if (type == MessageType::task) {
    if (!status_ && !told_) worker_.push(task_of(message.bytes));
  } else if (type == MessageType::stop) {
    status_ = lmq::status_of(message.bytes);
    worker_.stop();
  } else if (coordinator_ != nullptr) {
    coordinator_->on_message(message);
  }
}

void RankLoop::look_at_signals() {
  if (SignalGuard::raised() == 0) return;
  // What is finished is made durable before anything else: there may be a second left to live.
  spool_.flush();
  fail_all({static_cast<int>(Errc::interrupted), kInterrupted});
}

void RankLoop::fail_all(const RunStatus& status) {
  if (told_) return;
  told_ = true;
  told_at_ = Clock::now();
  worker_.stop();
  if (coordinator_ != nullptr)
    coordinator_->stop(status);
  else
    comm_.send(0, status_message(status.code == static_cast<int>(Errc::interrupted) ? MessageType::interrupted
                                                                                    : MessageType::failed,
                                 status));
}

bool RankLoop::leave() {
  if (!status_) {
    if (told_ && coordinator_ == nullptr && Clock::now() - told_at_ > kPatienceForRankZero)
      fail(Errc::interrupted, "rank 0 does not answer; run the same command again to continue");
    return false;
  }
  if (!done_ && worker_.at_rest()) {
    try {
      status_->code == 0 ? spool_.discard() : spool_.flush();
    } catch (const Error&) {
      // What could not be kept is made again; the status stands.
    }
    comm_.send(0, done_message(worker_.times()));
    done_ = true;
  }
  if (coordinator_ == nullptr) return done_;
  if (!coordinator_->ended() && coordinator_->seconds_stopping() > kPatienceSeconds)
    fail(Errc{status_->code == 0 ? static_cast<int>(Errc::internal) : status_->code},
         status_->code == 0 ? "a rank does not end" : status_->text);
  return coordinator_->ended();
}

}  // namespace lmq
