#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <catch2/catch.hpp>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <random>
#include <sstream>

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

TEST_CASE("progress: a line of any number of columns says the part, then the time left, the bar, the error, the rates",
          "[run][progress]") {
  ProgressSnapshot snapshot{.phase = "quantizing",
                            .done = 0.5,
                            .weights = 200'000'000,
                            .source_bytes = 400'000'000,
                            .squared_error = 4,
                            .energy = 100};
  const std::string whole = progress_line(snapshot, 2.0, true);
  for (std::size_t most = 0; most <= whole.size() + 1; ++most)
    REQUIRE(progress_line(snapshot, 2.0, true, most).size() <= most);
  REQUIRE(progress_line(snapshot, 2.0, true, whole.size()) == whole);
  REQUIRE(progress_line(snapshot, 2.0, true, 79) ==
          "[############............]  50.0 % quantizing, relative error 0.2, 2.0 s left");
  REQUIRE(progress_line(snapshot, 2.0, true, 60) == "[############............]  50.0 % quantizing, 2.0 s left");
  REQUIRE(progress_line(snapshot, 2.0, true, 39) == " 50.0 % quantizing, 2.0 s left");
  REQUIRE(progress_line(snapshot, 2.0, true, 20) == " 50.0 % quantizing");
  REQUIRE(progress_line(snapshot, 2.0, true, 3) == " 50");
}

/// Standard error of `work` where that is a terminal of so many columns.
std::string on_terminal(unsigned short columns, const std::function<void()>& work) {
  const int master = posix_openpt(O_RDWR | O_NOCTTY);
  REQUIRE(master >= 0);
  REQUIRE(grantpt(master) == 0);
  REQUIRE(unlockpt(master) == 0);
  const int terminal = open(ptsname(master), O_RDWR | O_NOCTTY), before = dup(STDERR_FILENO);
  const winsize size{.ws_row = 24, .ws_col = columns, .ws_xpixel = 0, .ws_ypixel = 0};
  ioctl(terminal, TIOCSWINSZ, &size);
  dup2(terminal, STDERR_FILENO);
  work();
  dup2(before, STDERR_FILENO);
  close(before);
  close(terminal);
  std::string text, piece(1 << 12, '\0');  // a read gives one write or more, and an error where nothing is left
  for (ssize_t count = 0; (count = read(master, piece.data(), piece.size())) > 0;)
    text.append(piece, 0, static_cast<std::size_t>(count));
  close(master);
  return text;
}

TEST_CASE("progress: on a terminal a line fits its width and never tells less than before", "[run][progress]") {
  const unsigned short columns = GENERATE(as<unsigned short>(), 20, 40, 80, 200);
  const std::string text = on_terminal(columns, [] {
    Progress progress(ProgressMode::automatic);
    ProgressSnapshot snapshot{
        .phase = "quantizing", .weights = 200'000'000, .source_bytes = 400'000'000, .squared_error = 4, .energy = 100};
    for (const double done : {0.832, 0.82, 0.8, 0.9, 0.1}) snapshot.done = done, progress.tell(snapshot);
  });
  std::istringstream lines(text);
  std::vector<std::string> parts;
  for (std::string line; std::getline(lines, line, '\r');) {
    REQUIRE(line.size() < columns);
    if (const auto end = line.find(" %"); end != line.npos) parts.push_back(line.substr(end - 4, 4));
  }
  REQUIRE(parts == std::vector<std::string>{"83.2", "83.2", "83.2", "90.0", "90.0"});
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
