#include "protocol.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <new>

#include "lmq/base/bytes.hpp"

namespace lmq {
namespace {

constexpr const char* kMessage = "message between ranks";

ByteWriter begin(MessageType type) {
  ByteWriter out;
  out.le(static_cast<std::uint8_t>(type));
  return out;
}

std::span<const std::byte> rest(std::span<const std::byte> message) {
  return message.empty() ? message : message.subspan(1);
}

std::string host() {
  char name[256] = "";
  return gethostname(name, sizeof name - 1) == 0 ? name : "an unknown host";
}

}  // namespace

std::vector<std::byte> task_message(const Task& task) {
  ByteWriter out = begin(MessageType::task);
  out.raw(task.to_bytes());
  return out.take();
}

std::vector<std::byte> result_message(const Outcome& outcome) {
  ByteWriter out = begin(MessageType::result);
  const std::vector<std::byte> finished = outcome.finished.to_bytes();
  out.le(static_cast<std::uint64_t>(finished.size()));
  out.raw(finished);
  out.raw(outcome.histogram);
  return out.take();
}

std::vector<std::byte> status_message(MessageType type, const RunStatus& status) {
  ByteWriter out = begin(type);
  out.le(static_cast<std::int32_t>(status.code));
  out.text(status.text);
  return out.take();
}

std::vector<std::byte> done_message(const RankTimes& times) {
  ByteWriter out = begin(MessageType::done);
  for (const double seconds : {times.computing, times.writing, times.waiting_input, times.waiting_work})
    out.le(seconds);
  return out.take();
}

MessageType message_type_of(std::span<const std::byte> message) {
  ByteReader in(message, kMessage);
  const auto type = in.le<std::uint8_t>("type");
  if (type < 1 || type > 6) in.refuse(fmt::format("type {}, expected 1 to 6", type));
  return MessageType{type};
}

Task task_of(std::span<const std::byte> message) { return Task::from_bytes(rest(message)); }

Outcome outcome_of(std::span<const std::byte> message) {
  ByteReader in(rest(message), kMessage);
  Outcome outcome;
  outcome.finished = Finished::from_bytes(in.raw(in.le<std::uint64_t>("length"), "result"), kMessage);
  const auto histogram = in.raw(in.left(), "histogram");
  outcome.histogram.assign(histogram.begin(), histogram.end());
  return outcome;
}

RunStatus status_of(std::span<const std::byte> message) {
  ByteReader in(rest(message), kMessage);
  RunStatus status;
  status.code = in.le<std::int32_t>("code");
  status.text = in.text("text");
  return status;
}

RankTimes times_of(std::span<const std::byte> message) {
  ByteReader in(rest(message), kMessage);
  RankTimes times;
  for (double* seconds : {&times.computing, &times.writing, &times.waiting_input, &times.waiting_work})
    *seconds = in.le<double>("seconds");
  return times;
}

RunStatus current_status(int rank, int ranks) {
  const auto here = [&](std::string text) {
    if (ranks > 1) text += fmt::format(" (rank {} on {})", rank, host());
    return text;
  };
  try {
    throw;
  } catch (const Error& error) {
    const bool local = error.code == Errc::io || error.code == Errc::internal || error.code == Errc::cannot_create;
    return {static_cast<int>(error.code), local ? here(error.what()) : error.what()};
  } catch (const std::bad_alloc&) {
    return {static_cast<int>(Errc::io),
            here("out of memory: lmq plan says what a rank needs; fewer threads need less")};
  } catch (const std::exception& error) {
    return {static_cast<int>(Errc::internal), here(fmt::format("internal error: {}", error.what()))};
  }
}

}  // namespace lmq
