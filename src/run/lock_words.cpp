#include <fmt/format.h>

#include <charconv>
#include <string_view>

#include "lmq/run/run_lock.hpp"

namespace lmq {
namespace {

constexpr std::string_view kTitle = "lmq lock 1\n";

void put_number(std::string_view text, std::uint64_t& value) {
  (void)std::from_chars(text.data(), text.data() + text.size(), value);
}

void put_line(LockWords& words, std::string_view key, std::string_view value) {
  if (key == "who") words.who = value;
  if (key == "kernel") words.kernel = value;
  if (key == "pids") words.pids = value;
  if (key == "pid") put_number(value, words.pid);
  if (key == "born") put_number(value, words.born);
  if (key == "run") words.run = value;
  if (key == "beat") put_number(value, words.beat);
  if (key == "plan") words.plan = value;
  if (key == "finished") words.finished = true;
  if (key == "part") words.parts.emplace_back(value);
}

}  // namespace

std::string LockWords::text() const {
  std::string text = fmt::format("{}who {}\nkernel {}\npids {}\npid {}\nborn {}\nrun {}\nbeat {:010}\nplan {}\n",
                                 kTitle, who, kernel, pids, pid, born, run, beat, plan);
  if (finished) text += "finished yes\n";
  for (const std::string& part : parts) text += fmt::format("part {}\n", part);
  return text + "end\n";
}

LockWords LockWords::parse(const std::string& text, bool& ours) {
  LockWords words;
  const std::string_view all(text);
  ours = all.starts_with(kTitle.substr(0, all.size()));
  for (std::size_t at = kTitle.size(); ours && at < all.size();) {
    const std::string_view line = all.substr(at, all.find('\n', at) - at);
    if (line == "end") break;  // what follows is left of a longer text
    if (const std::size_t space = line.find(' '); space != std::string_view::npos)
      put_line(words, line.substr(0, space), line.substr(space + 1));
    at += line.size() + 1;
  }
  return words;
}

}  // namespace lmq
