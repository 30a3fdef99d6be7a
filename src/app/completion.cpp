// Completion for bash: lmq --completion bash.
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "export_formats.hpp"
#include "lmq/plan/recipe.hpp"
#include "manual.hpp"
#include "option_table.hpp"

namespace lmq::app {
namespace {

/// The words that an option takes; nothing where it takes numbers, names or files.
std::string words_of(std::string_view option) {
  if (option == "method") {
    std::string names;
    for (const QuantizerEntry& method : quantizers()) names += fmt::format("{} ", method.name);
    return names;
  }
  if (option == "to") {
    std::string names;
    for (const ExportFormat& format : export_formats()) names += fmt::format("{} ", format.name);
    return names;
  }
  for (const MethodOption* known : method_options())
    if (known->name == option) return fmt::format("{}", fmt::join(known->words, " "));
  return std::string(choices_of(option));
}

/// Options whose values are files or folders.
bool takes_path(std::string_view value) {
  constexpr std::string_view kPaths[] = {"OUT.h5", "PATH", "FROM", "INPUT", "FILE", "[FILE]", "R.json", "DIR"};
  return std::ranges::find(kPaths, value) != std::end(kPaths);
}

/// One branch of a case: what follows an option.
void add_branch(std::string& out, const std::string& label, const std::string& body) {
  out += fmt::format("    {}) {} ;;\n", label, body);
}

std::string value_branches(Command command) {
  std::string out, numbers;
  for (const OptionEntry* entry : options_of(command)) {
    if (entry->value.empty() || entry->value.starts_with('[')) continue;
    std::string label = fmt::format("--{}", entry->name);
    if (entry->letter != 0) label += fmt::format("|-{}", entry->letter);
    const std::string words = words_of(entry->name);
    if (!words.empty())
      add_branch(out, label, fmt::format("words='{}'", words));
    else if (takes_path(entry->value))
      add_branch(out, label, "files=yes");
    else
      numbers += fmt::format("{}{}", numbers.empty() ? "" : "|", label);
  }
  if (takes_method_options(command))
    for (const MethodOption* known : method_options()) {
      const std::string words = words_of(known->name);
      if (!words.empty()) add_branch(out, fmt::format("--{}", known->name), fmt::format("words='{}'", words));
    }
  if (!numbers.empty()) add_branch(out, numbers, "return");
  return out;
}

std::string command_function(const CommandEntry& entry) {
  std::string names;
  for (const std::string& name : option_names(entry.command)) names += name + " ";
  return fmt::format(
      "_lmq_{}() {{\n"
      "  options='{}'\n"
      "  case $previous in\n{}"
      "    *) {} ;;\n"
      "  esac\n"
      "}}\n",
      entry.name, names, value_branches(entry.command),
      entry.command == Command::methods ? fmt::format("words='{}'", words_of("method")) : std::string("files=yes"));
}

}  // namespace

std::string bash_completion() {
  std::string text = "# Completion of lmq for bash, made by: lmq --completion bash\n", names;
  for (const CommandEntry& entry : commands()) {
    text += command_function(entry);
    names += fmt::format("{} ", entry.name);
  }
  text += fmt::format(
      "_lmq() {{\n"
      "  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}} options='' words='' "
      "files=''\n"
      "  COMPREPLY=()\n"
      "  if ((COMP_CWORD == 1)); then\n"
      "    mapfile -t COMPREPLY < <(compgen -W '{}help --help --version' -- \"$current\")\n"
      "    return\n"
      "  fi\n"
      "  case ${{COMP_WORDS[1]}} in\n"
      "    {}) \"_lmq_${{COMP_WORDS[1]}}\" ;;\n"
      "    help) words='{}' ;;\n"
      "    *) return ;;\n"
      "  esac\n"
      "  if [[ $current == -* ]]; then\n"
      "    mapfile -t COMPREPLY < <(compgen -W \"$options\" -- \"$current\")\n"
      "  elif [[ -n $words ]]; then\n"
      "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\")\n"
      "  elif [[ -n $files ]]; then\n"
      "    compopt -o filenames 2>/dev/null\n"
      "    mapfile -t COMPREPLY < <(compgen -f -- \"$current\")\n"
      "  fi\n"
      "}}\n"
      "complete -F _lmq lmq\n",
      names,
      [&] {
        std::string labels;
        for (const CommandEntry& entry : commands())
          labels += fmt::format("{}{}", labels.empty() ? "" : "|", entry.name);
        return labels;
      }(),
      names);
  return text;
}

}  // namespace lmq::app
