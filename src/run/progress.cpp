#include "progress.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "lmq/base/text.hpp"

namespace lmq {
namespace {

constexpr auto kRedraw = std::chrono::milliseconds(100);
constexpr auto kFirstLine = std::chrono::seconds(2), kNextLine = std::chrono::seconds(30);
constexpr std::size_t kBarWidth = 24;
// Before this part is done an estimate of the time left says nothing.
constexpr double kEnoughToTell = 0.01;

std::string bar_of(double done) {
  const auto filled = std::min(kBarWidth, static_cast<std::size_t>(done * kBarWidth));
  return "[" + std::string(filled, '#') + std::string(kBarWidth - filled, '.') + "] ";
}

}  // namespace

std::string progress_line(const ProgressSnapshot& snapshot, double seconds, bool bar) {
  const double done = std::clamp(snapshot.done, 0.0, 1.0), now = done - snapshot.done_before;
  std::string line = bar ? bar_of(done) : "";
  line += fmt::format("{:5.1f} % {}", 100 * done, snapshot.phase);
  if (snapshot.weights > 0 && seconds > 0)
    line += fmt::format(", {:.1f} M weights/s, {:.0f} MB/s", 1e-6 * static_cast<double>(snapshot.weights) / seconds,
                        1e-6 * static_cast<double>(snapshot.source_bytes) / seconds);
  if (snapshot.energy > 0)
    line += fmt::format(", relative error {:.3g}", std::sqrt(std::max(snapshot.squared_error, 0.0) / snapshot.energy));
  if (now > kEnoughToTell) line += fmt::format(", {} left", format_duration(seconds * (1 - done) / now));
  return line;
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
  const std::string blank = "\r" + std::string(width_, ' ') + "\r";
  std::fputs(blank.c_str(), stderr);
  std::fflush(stderr);
}

bool Progress::due() const { return style_ != Style::silent && Clock::now() >= next_; }

void Progress::tell(const ProgressSnapshot& snapshot) {
  const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  std::string line = progress_line(snapshot, seconds, style_ == Style::bar);
  if (style_ == Style::bar) {
    const std::size_t length = line.size();
    line = "\r" + line + std::string(width_ > length ? width_ - length : 0, ' ');
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
