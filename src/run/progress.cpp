#include "progress.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "lmq/base/text.hpp"

namespace lmq {
namespace {

constexpr auto kRedraw = std::chrono::milliseconds(100);
constexpr auto kFirstLine = std::chrono::seconds(2), kNextLine = std::chrono::seconds(30);
constexpr std::size_t kBarWidth = 24, kUsualColumns = 80;
// Before this part is done an estimate of the time left says nothing.
constexpr double kEnoughToTell = 0.01;

std::string bar_of(double done) {
  const auto filled = std::min(kBarWidth, static_cast<std::size_t>(done * kBarWidth));
  return "[" + std::string(filled, '#') + std::string(kBarWidth - filled, '.') + "] ";
}

/// Columns of the terminal that can be written to without a new line.
std::size_t columns_of_terminal() {
  winsize size{};
  const bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
  return (known ? size.ws_col : kUsualColumns) - 1;
}

}  // namespace

std::string progress_line(const ProgressSnapshot& snapshot, double seconds, bool bar, std::size_t most) {
  const double done = std::clamp(snapshot.done, 0.0, 1.0), now = done - snapshot.done_before;
  std::string drawn = bar ? bar_of(done) : "", rates, error, left;
  if (snapshot.weights > 0 && seconds > 0)
    rates = fmt::format(", {:.1f} M weights/s, {:.0f} MB/s", 1e-6 * static_cast<double>(snapshot.weights) / seconds,
                        1e-6 * static_cast<double>(snapshot.source_bytes) / seconds);
  if (snapshot.energy > 0)
    error = fmt::format(", relative error {:.3g}", std::sqrt(std::max(snapshot.squared_error, 0.0) / snapshot.energy));
  if (now > kEnoughToTell) left = fmt::format(", {} left", format_duration(seconds * (1 - done) / now));
  const std::string part = fmt::format("{:5.1f} % {}", 100 * done, snapshot.phase);
  for (std::string* least : {&rates, &error, &drawn, &left})
    if (drawn.size() + part.size() + rates.size() + error.size() + left.size() > most) least->clear();
  return (drawn + part + rates + error + left).substr(0, most);
}

Progress::Progress(ProgressMode mode) {
  if (mode == ProgressMode::none) return;
  const bool terminal = isatty(STDERR_FILENO) == 1;
  style_ = mode == ProgressMode::automatic && terminal ? Style::bar : Style::lines;
  next_ = start_ + (style_ == Style::bar ? Clock::duration(kRedraw)
                                         : Clock::duration(mode == ProgressMode::plain ? kFirstLine : kNextLine));
}

Progress::~Progress() {
  if (width_ == 0) return;
  const std::string blank = "\r" + std::string(std::min(width_, columns_of_terminal()), ' ') + "\r";
  std::fputs(blank.c_str(), stderr);
  std::fflush(stderr);
}

bool Progress::due() const { return style_ != Style::silent && Clock::now() >= next_; }

void Progress::tell(ProgressSnapshot snapshot) {
  const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  snapshot.done = told_ = std::max(told_, snapshot.done);
  const bool bar = style_ == Style::bar;
  const std::size_t most = bar ? columns_of_terminal() : std::string::npos;
  std::string line = progress_line(snapshot, seconds, bar, most);
  if (bar) {
    const std::size_t length = line.size(), before = std::min(width_, most);  // the window may have shrunk
    line = "\r" + line + std::string(before > length ? before - length : 0, ' ');
    width_ = length;
    next_ = Clock::now() + kRedraw;
  } else {
    line = "lmq: " + line + "\n";
    next_ = Clock::now() + kNextLine;
  }
  std::fputs(line.c_str(), stderr);
  std::fflush(stderr);
}

}  // namespace lmq
