// Help: the options of a command by topic, as wide as the terminal.
#include <fmt/format.h>

#include <algorithm>

#include "lmq/base/error.hpp"
#include "lmq/base/text.hpp"
#include "lmq/base/words.hpp"
#include "lmq/plan/recipe.hpp"
#include "manual.hpp"
#include "option_table.hpp"
#include "table.hpp"
#include "yardstick.hpp"

namespace lmq::app {
namespace {

constexpr std::size_t kColumn = 26;  // where the texts of options begin

std::string_view title(Topic topic) {
  switch (topic) {
    case Topic::files:
      return "Input and output";
    case Topic::spending:
      return "What to spend";
    case Topic::running:
      return "Running";
    case Topic::seldom:
      break;
  }
  return "Seldom needed";
}

/// "  -o, --output OUT.h5".
std::string heading(const OptionEntry& entry) {
  return fmt::format("  {}--{}{}{}", entry.letter == 0 ? "    " : fmt::format("-{}, ", entry.letter), entry.name,
                     entry.value.empty() ? "" : " ", entry.value);
}

std::string in_columns(const std::string& head, std::string_view text, std::size_t width) {
  const std::string wrapped = wrap(text, width, kColumn);
  if (head.size() + 2 > kColumn) return fmt::format("{}\n{}", head, wrapped);
  return head + wrapped.substr(head.size());
}

/// The options of methods by name, with the methods that have the same ones on one line.
std::string method_options_text(std::size_t width) {
  std::vector<std::pair<std::string, std::string>> lines;  // options, methods
  for (const QuantizerEntry& method : quantizers()) {
    std::string options;
    for (const MethodOption& known : method.options)
      options += fmt::format("{}--{}", options.empty() ? "" : " ", known.name);
    if (options.empty()) continue;
    const auto at = std::ranges::find(lines, options, [](const auto& line) { return line.first; });
    if (at == lines.end())
      lines.emplace_back(options, method.name);
    else
      at->second += fmt::format(", {}", method.name);
  }
  std::string text = "\nOptions of methods (lmq methods METHOD explains them)\n";
  for (const auto& [options, methods] : lines) text += in_columns("  " + methods, options, width);
  return text;
}

std::string options_text(const CommandEntry& entry, std::size_t width) {
  std::string text;
  for (const Topic topic : {Topic::files, Topic::spending, Topic::running, Topic::seldom}) {
    std::string lines;
    for (const OptionEntry* option : options_of(entry.command))
      if (option->topic == topic) lines += in_columns(heading(*option), option->help, width);
    if (!lines.empty()) text += fmt::format("\n{}\n{}", title(topic), lines);
    if (topic == Topic::spending && takes_method_options(entry.command)) text += method_options_text(width);
  }
  return text;
}

/// Paragraphs are wrapped; lines that begin with a space stay as they are.
std::string prose(std::string_view text, std::size_t width) {
  std::string out;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    out += line.empty() || line.front() == ' ' ? fmt::format("{}\n", line) : wrap(line, width, 0);
    text.remove_prefix(std::min(line.size() + 1, text.size()));
  }
  return out;
}

std::string overview(std::size_t width) {
  std::string text =
      "lmq: quantizes large trained checkpoints into one HDF5 file\n\nusage: lmq COMMAND [arguments]\n\n";
  for (const CommandEntry& entry : commands()) text += fmt::format("  {:<9} {}\n", entry.name, entry.summary);
  text +=
      "\n  lmq COMMAND --help    options and examples of a command\n"
      "  lmq --version         version, build and libraries\n\n"
      "Examples:\n"
      "  lmq quantize model/ -o model.h5 --bits 4\n"
      "  lmq verify model.h5 --against model/\n\n";
  return text + prose(fmt::format("Exit codes: {}.", exit_codes()), width);
}

}  // namespace

std::string_view exit_codes() noexcept {
  return "0 done; 1 verify found a difference; 64 usage; 65 malformed input; 66 input missing; 69 unsupported; "
         "70 internal; 73 output cannot be made; 74 I/O or out of space; 75 interrupted, run the same command again";
}

std::string help_text(const std::string& topic, std::size_t width) {
  if (topic.empty()) return overview(width);
  const CommandEntry* entry = find_command(topic);
  if (entry == nullptr) {
    std::vector<std::string_view> names{"help", "version"};
    for (const CommandEntry& known : commands()) names.push_back(known.name);
    const std::string near = nearest(topic, names);
    fail(Errc::usage, fmt::format("unknown command '{}'{}", printable(topic),
                                  near.empty() ? "; lmq --help lists them" : fmt::format("; did you mean {}?", near)));
  }
  return fmt::format(
      "usage: lmq {} {}\n\n{}{}{}{}", entry->name, entry->arguments, prose(entry->summary, width),
      options_text(*entry, width), entry->text.empty() ? "" : "\n",
      prose(entry->text, width) + (entry->command == Command::quantize ? "\n" + prose(quality_in_short(), width) : ""));
}

}  // namespace lmq::app
