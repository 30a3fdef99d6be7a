#pragma once
#include <chrono>
#include <cstdint>
#include <string>

#include "lmq/run/quantize_run.hpp"

namespace lmq {

/// Where a run stands, over all ranks.
struct ProgressSnapshot {
  const char* phase = "";          ///< "measuring", "quantizing", "writing"
  double done = 0;                 ///< part of all work, 0 .. 1, by estimated cost
  double done_before = 0;          ///< of it by earlier runs
  std::uint64_t weights = 0;       ///< quantized in this run
  std::uint64_t source_bytes = 0;  ///< of them
  double squared_error = 0;        ///< of all weights that are quantized by now, as they are stored
  double energy = 0;               ///< of them
};

/// The line a person reads: bar, percentage, phase, rates, relative error so far, time left. seconds: since the start.
/// most: columns; what does not fit is left out: rates first, then the error, the bar, the time left.
[[nodiscard]] std::string progress_line(const ProgressSnapshot& snapshot, double seconds, bool bar,
                                        std::size_t most = std::string::npos);

/// Tells how far the run is, on standard error of rank 0: on a terminal one line that is rewritten ten times a second,
/// else a line every 30 seconds (the first after 2 when plain lines were asked for), or nothing.
class Progress {
 public:
  explicit Progress(ProgressMode mode);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress();  ///< leaves a clean line
  /// True when a new line is due; only then is a ProgressSnapshot worth making.
  [[nodiscard]] bool due() const;
  /// Never a smaller part than before: what a size asked for makes again was counted once.
  void tell(ProgressSnapshot snapshot);

 private:
  using Clock = std::chrono::steady_clock;
  enum class Style : std::uint8_t { silent, lines, bar } style_ = Style::silent;
  Clock::time_point start_ = Clock::now(), next_;
  std::size_t width_ = 0;  // of the line on the terminal
  double told_ = 0;        // the largest part
};

}  // namespace lmq
