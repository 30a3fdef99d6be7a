#include "app.hpp"

#include <fmt/format.h>

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <thread>

#include "commands.hpp"
#include "job.hpp"
#include "launch.hpp"
#include "lmq/base/error.hpp"
#include "lmq/base/parallel.hpp"
#include "lmq/base/text.hpp"
#include "lmq/run/signals.hpp"
#include "manual.hpp"
#include "terminal.hpp"

namespace lmq::app {
namespace {

/// lmq --man [COMMAND], lmq --completion SHELL: what an installation is made of. Nothing for other command lines.
std::optional<std::string> documentation(int argc, char** argv) {
  const std::string_view first = argv[1], second = argc > 2 ? argv[2] : "";
  if (first != "--man" && first != "--completion") return std::nullopt;
  if (argc > 3) fail(Errc::usage, fmt::format("{}: one argument is expected, found '{}'", first, printable(argv[3])));
  if (first == "--man") return man_page(std::string(second));
  if (second != "bash")
    fail(Errc::usage, fmt::format("--completion: expected bash, found '{}'", printable(std::string(second))));
  return bash_completion();
}

/// Before anything is read that takes time: may the report go where it shall?
int with_report(Comm& comm, const Options& options, int (*command)(Comm&, const Options&)) {
  run_agreed(comm, [&] {
    if (comm.rank() == 0) check_report(options);
  });
  return command(comm, options);
}

/// Commands for which one rank is enough.
int run_alone(const Options& options) {
  if (options.threads > 0) set_thread_count(options.threads);
  check_report(options);
  switch (options.command) {
    case Command::help:
      print(help_text(options.topic, output_width()));
      return 0;
    case Command::version:
      return show_version();
    case Command::inspect:
      return inspect(options);
    case Command::export_:
      return export_file(options);
    case Command::methods:
      return methods(options);
    default:
      fail(Errc::internal, "a command without a body");
  }
}

int run_command(int argc, char** argv, const Options& options) {
  switch (options.command) {
    case Command::quantize: {
      choose_threads(options.threads);
      return with_comm(argc, argv, [&](Comm& comm) { return with_report(comm, options, quantize); });
    }
    case Command::plan:
      if (options.threads > 0) set_thread_count(options.threads);  // of another machine, perhaps
      return with_comm(argc, argv, [&](Comm& comm) { return with_report(comm, options, plan); });
    case Command::verify:
      choose_threads(options.threads);
      return with_comm(argc, argv, [&](Comm& comm) { return with_report(comm, options, verify); });
    default:
      return launch_rank() == 0 ? run_alone(options) : 0;
  }
}

int dispatch(int argc, char** argv) {
  const bool first = launch_rank() == 0;
  if (argc <= 1) {
    release_signals();
    if (first) print(help_text("", output_width()));
    return static_cast<int>(Errc::usage);
  }
  if (const std::optional<std::string> text = documentation(argc, argv)) {
    release_signals();
    if (first) print(*text);
    return 0;
  }
  const Options options = parse_options(argc, argv);
  std::optional<SignalGuard> signals;  // from the first moment, MPI's start included, a signal means: stop, code 75
  if (options.command == Command::quantize || options.command == Command::export_) signals.emplace();
  release_signals();
  const int code = run_command(argc, argv, options);
  if (signals) hold_signals();  // what was made stays made, whenever one comes
  return code;
}

}  // namespace

int run(int argc, char** argv) {
  guard_standard_streams();
  try {
    return dispatch(argc, argv);
  } catch (...) {
    // Before the ranks know each other all of them see the same command line, and fail alike.
    const Failure failure = current_failure();
    if (launch_rank() == 0) complain(failure.line);
    // mpirun ends all ranks when it sees the first one fail: that shall be the one that has said why.
    if (launch_rank() != 0) std::this_thread::sleep_for(std::chrono::seconds(5));
    return failure.code;
  }
}

}  // namespace lmq::app
