#pragma once
#include <cstddef>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace lmq::app {

/// Opens /dev/null where standard input, output or error is closed, so that no file of ours takes their numbers, and
/// ignores SIGPIPE and SIGXFSZ: a broken pipe or a limit on file sizes becomes an error of the write. First thing in
/// main.
void guard_standard_streams();

/// True when there is no standard output that could be written.
[[nodiscard]] bool output_is_closed() noexcept;

/// Results: all of `text` to standard output; what is left when its reader goes is dropped. Errc::io when it cannot be
/// written.
void print(std::string_view text);

/// What is said of a file that is finished: where it cannot be shown, that is a warning and no error. `made`: the file.
void print_beside(std::string_view text, const std::string& made);

/// The key, with lmq's version, by which a report is known: it sorts before all others.
inline constexpr const char* kReportMark = "#lmq";
/// A report (an object) as JSON, kReportMark first: to standard output when `to` is "-", else to that file, written
/// beside its name and renamed. What may be replaced is for check_report to say.
void print_json(const std::string& to, nlohmann::json json);

/// One line "lmq: <text>" on standard error; line breaks and control characters inside become spaces. Never fails.
void complain(std::string_view text) noexcept;
/// The same with "warning: ".
void warn(std::string_view text) noexcept;
/// The same with "note: ", in lines as wide as those of standard output, indented from the second on.
void note(std::string_view text) noexcept;

/// A line of progress on standard error: rewritten in place on a terminal, a line of its own at most every 10 s
/// elsewhere.
class Progress {
 public:
  enum class Style { in_place, lines, none };
  Progress(std::string what, Style style) : what_(std::move(what)), style_(style) {}
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  /// `done` of `all`, in any unit; cheap enough to be called often. Never less is said than before.
  void at(double done, double all);

 private:
  std::string what_;
  Style style_;
  double started_ = -1, shown_ = -1, share_ = 0;
  bool open_line_ = false;
};

/// Columns of the terminal that standard output is, else COLUMNS, else 80; 40 at least. What help and tables fit into.
[[nodiscard]] std::size_t output_width() noexcept;

/// True when standard error is a terminal.
[[nodiscard]] bool error_is_terminal() noexcept;

/// Bytes of memory that this process takes at the moment; 0 when unknown.
[[nodiscard]] std::uint64_t resident_bytes() noexcept;

/// Seconds on a clock that never goes back.
[[nodiscard]] double monotonic_seconds() noexcept;

}  // namespace lmq::app
