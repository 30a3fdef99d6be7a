#include "terminal.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <span>

#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/io/file.hpp"
#include "table.hpp"
#include "version.hpp"

namespace lmq::app {
namespace {

constexpr std::size_t kLongestNote = 4096;

/// One write call per line, so that lines of several ranks do not mix.
void write_line(std::string_view head, std::string_view text) noexcept {
  try {
    std::string line = fmt::format("{}{}", head, text);
    for (char& c : line)
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = ' ';
    line += '\n';
    [[maybe_unused]] const auto written = ::write(STDERR_FILENO, line.data(), line.size());
  } catch (...) {  // no memory for a line: nothing can be said
  }
}

}  // namespace

void guard_standard_streams() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    if (::fcntl(fd, F_GETFD) < 0 && errno == EBADF) {
      // Standard output is opened for reading on purpose: results that go nowhere are an error (output_is_closed).
      [[maybe_unused]] const int opened = ::open("/dev/null", fd == STDERR_FILENO ? O_WRONLY : O_RDONLY);
    }
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
}

bool output_is_closed() noexcept {
  const int flags = ::fcntl(STDOUT_FILENO, F_GETFL);
  return flags < 0 || (flags & O_ACCMODE) == O_RDONLY;
}

void print(std::string_view text) {
  while (!text.empty()) {
    const auto written = ::write(STDOUT_FILENO, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno == EPIPE) return;  // whoever read it has seen enough
    if (written < 0) fail(Errc::io, fmt::format("standard output: {}", std::strerror(errno)));
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

void print_beside(std::string_view text, const std::string& made) {
  try {
    print(text);
  } catch (const Error& error) {
    warn(fmt::format("{} is complete, but what is said of it cannot be shown: {}", printable(made), error.what()));
  }
}

void print_json(const std::string& to, nlohmann::json json) {
  json[kReportMark] = kVersion;
  const std::string text = json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + '\n';
  if (to == "-") return print(text);
  write_whole(to, [&](const File& file) { file.write(0, std::as_bytes(std::span(text))); });
}

void complain(std::string_view text) noexcept { write_line("lmq: ", text); }
void warn(std::string_view text) noexcept { write_line("lmq: warning: ", text); }
void note(std::string_view text) noexcept {
  try {
    const std::string lines = hanging(fmt::format("lmq: note: {}", printable(text, kLongestNote)), output_width());
    [[maybe_unused]] const auto written = ::write(STDERR_FILENO, lines.data(), lines.size());
  } catch (...) {  // no memory for a line: nothing can be said
  }
}

std::size_t output_width() noexcept {
  constexpr std::size_t kUsual = 80, kMin = 40, kMax = 1000;
  std::size_t width = 0;
  winsize size{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0) width = size.ws_col;
  if (const char* columns = std::getenv("COLUMNS"); width == 0 && columns != nullptr) {
    const std::string_view digits(columns);
    if (std::from_chars(digits.data(), digits.data() + digits.size(), width).ec != std::errc{}) width = 0;
  }
  return width == 0 ? kUsual : std::clamp(width, kMin, kMax);
}

bool error_is_terminal() noexcept { return ::isatty(STDERR_FILENO) == 1; }

std::uint64_t resident_bytes() noexcept {
  unsigned long long program = 0, resident = 0;
  std::FILE* const file = std::fopen("/proc/self/statm", "r");
  if (file == nullptr) return 0;
  const int fields = std::fscanf(file, "%llu %llu", &program, &resident);
  std::fclose(file);
  const long page = ::sysconf(_SC_PAGESIZE);
  return fields == 2 && page > 0 ? resident * static_cast<std::uint64_t>(page) : 0;
}

double monotonic_seconds() noexcept {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void Progress::at(double done, double all) {
  if (style_ == Style::none || !(all > 0)) return;
  const double now = monotonic_seconds();
  share_ = std::max(share_, done / all);
  if (started_ < 0) started_ = now, shown_ = now;
  const double pause = style_ == Style::in_place ? 0.2 : 10;
  if (now - shown_ < pause) return;
  shown_ = now;
  const double seconds = now - started_;
  std::string line = fmt::format("{} {:.0f} %", what_, 100 * share_);
  if (share_ > 0) line += fmt::format(", {} left", format_duration(seconds / share_ - seconds));
  if (style_ == Style::lines) {
    write_line("lmq: ", line);
    return;
  }
  line = fmt::format("\r\033[Klmq: {}", line);
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, line.data(), line.size());
  open_line_ = true;
}

Progress::~Progress() {
  if (open_line_) [[maybe_unused]]
    const auto written = ::write(STDERR_FILENO, "\r\033[K", 4);
}

}  // namespace lmq::app
