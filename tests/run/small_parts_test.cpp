#include <sys/wait.h>
#include <unistd.h>
#include <catch2/catch.hpp>
#include <csignal>
#include <random>

#include "lmq/run/signals.hpp"
#include "progress.hpp"
#include "protocol.hpp"

using namespace lmq;

TEST_CASE("signals: a guard turns them into a flag, and gives back what was there", "[run][signals]") {
  static int seen = 0;
  const auto before = std::signal(SIGUSR1, [](int) { ++seen; });
  {
    const SignalGuard guard;
    REQUIRE(SignalGuard::raised() == 0);
    {
      const SignalGuard inner;
      std::raise(SIGUSR1);
      REQUIRE(SignalGuard::raised() == SIGUSR1);
    }
    std::raise(SIGTERM);
    REQUIRE(SignalGuard::raised() == SIGTERM);
    REQUIRE(seen == 0);
  }
  std::raise(SIGUSR1);
  REQUIRE(seen == 1);
  const SignalGuard next;
  REQUIRE(SignalGuard::raised() == 0);
  std::signal(SIGUSR1, before);
}

TEST_CASE("signals: the second interrupt from the keyboard ends the process", "[run][signals]") {
  const pid_t child = fork();
  if (child == 0) {
    const SignalGuard guard;
    std::raise(SIGINT);
    if (SignalGuard::raised() != SIGINT) _exit(1);
    std::raise(SIGINT);
    _exit(2);
  }
  int status = 0;
  waitpid(child, &status, 0);
  REQUIRE(WIFSIGNALED(status));
  REQUIRE(WTERMSIG(status) == SIGINT);
}

TEST_CASE("progress: a line says part, phase, rate, error so far and time left", "[run][progress]") {
  ProgressSnapshot snapshot;
  snapshot.phase = "quantizing";
  snapshot.done = 0.5;
  snapshot.weights = 200'000'000;
  snapshot.source_bytes = 400'000'000;
  REQUIRE(progress_line(snapshot, 2.0, false) == " 50.0 % quantizing, 100.0 M weights/s, 200 MB/s, 2.0 s left");
  REQUIRE_THAT(progress_line(snapshot, 2.0, true), Catch::StartsWith("[############............]  50.0 %"));
  snapshot.squared_error = 4, snapshot.energy = 100;
  REQUIRE_THAT(progress_line(snapshot, 2.0, false), Catch::EndsWith(" 200 MB/s, relative error 0.2, 2.0 s left"));
  snapshot.done_before = 0.4;  // what an earlier run did says nothing about this one's speed
  REQUIRE_THAT(progress_line(snapshot, 2.0, false), Catch::EndsWith("10.0 s left"));
  snapshot = {};
  REQUIRE(progress_line(snapshot, 0, true) == "[........................]   0.0 % ");
  snapshot.done = 7;  // never beyond the bar
  REQUIRE_THAT(progress_line(snapshot, 1, true), Catch::StartsWith("[########################] 100.0 %"));
}

TEST_CASE("protocol: what one rank says another understands, and noise is refused", "[run][protocol]") {
  Task task{{TaskKind::solve, 12, 3}, {std::byte{1}, std::byte{2}}, 0.5};
  const auto message = task_message(task);
  REQUIRE(message_type_of(message) == MessageType::task);
  const Task again = task_of(message);
  REQUIRE(again.key == task.key);
  REQUIRE(again.body == task.body);
  REQUIRE(again.seconds == task.seconds);

  Outcome outcome;
  outcome.finished.key = {TaskKind::measure, 5, 1};
  outcome.finished.place = {1, 2, 3, 4, 5};
  outcome.finished.body = {std::byte{9}};
  outcome.histogram = {std::byte{7}, std::byte{8}};
  const Outcome heard = outcome_of(result_message(outcome));
  REQUIRE(heard.finished.to_bytes() == outcome.finished.to_bytes());
  REQUIRE(heard.histogram == outcome.histogram);

  const RunStatus verdict = status_of(status_message(MessageType::failed, {74, "no space left"}));
  REQUIRE(verdict.code == 74);
  REQUIRE(verdict.text == "no space left");
  REQUIRE_THROWS_AS(message_type_of({}), Error);

  std::mt19937 draw(3);
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::byte> noise(draw() % 60);
    for (std::byte& byte : noise) byte = static_cast<std::byte>(draw() % 8);
    try {
      (void)message_type_of(noise);
      (void)task_of(noise);
      (void)outcome_of(noise);
      (void)status_of(noise);
    } catch (const Error& error) {
      REQUIRE(error.code == Errc::malformed);
    }
  }
}

TEST_CASE("protocol: errors of a machine name it, errors of the input do not", "[run][protocol]") {
  const auto verdict = [](Errc code, int ranks) {
    try {
      fail(code, "what happened");
    } catch (...) {
      return current_status(1, ranks);
    }
  };
  REQUIRE(verdict(Errc::malformed, 4).text == "what happened");
  REQUIRE(verdict(Errc::io, 1).text == "what happened");
  REQUIRE_THAT(verdict(Errc::io, 4).text, Catch::StartsWith("what happened (rank 1 on "));
  REQUIRE(verdict(Errc::io, 4).code == 74);
}
